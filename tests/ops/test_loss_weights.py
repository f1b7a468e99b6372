"""``weight`` and ``instances`` of every loss: a weight of 3 has the effect of three copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
import reference
from assertions import DTYPES, assert_close, same_bits
from cases import normal, seeded
from chainrule import ops
from op_contract import Call, check_contract, raises

pytestmark = pytest.mark.usefixtures("backend")

LOSSES = ["softmax_cross_entropy", "binary_cross_entropy", "squared_error", "huber"]
COLUMNS = [1, 3, 10, 67, 1009]


def arrays_of(op: str, rows: int, columns: int, dtype: Any) -> dict[str, np.ndarray]:
    rng = seeded((op, rows, columns))
    first = "logits" if op.endswith("cross_entropy") else "prediction"
    values = normal(rng, (rows, columns), dtype)
    if op == "softmax_cross_entropy":
        return {first: values, "labels": rng.integers(0, columns, rows)}
    target = normal(rng, (rows, columns), dtype)
    return {first: values, "target": (target > 0).astype(dtype) if first == "logits" else target}


def weights_of(rows: int, dtype: Any) -> np.ndarray:
    weight = seeded(rows).uniform(0.1, 4, rows).astype(dtype)
    weight[1] = 0
    return weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", LOSSES)
@pytest.mark.parametrize("columns", COLUMNS)
def test_weights_and_divisor(op: str, columns: int, dtype: np.dtype) -> None:
    """Relative to the unweighted results, each weighted one is rounded four times more."""
    arrays, weight = arrays_of(op, 23, columns, dtype), weights_of(23, dtype)
    plain = getattr(ops, op)(**arrays, instances=1.0)
    for options in ({}, {"instances": 7.5}, {"instances": np.float32(3)}):
        got = getattr(ops, op)(**arrays, weight=weight, **options)
        divisor = float(options.get("instances", weight.astype(np.float64).sum()))
        w = weight.astype(np.float64)
        assert_close(got[0], w * plain[0], dtype=dtype, terms=4, may_vanish=columns == 1)
        want = w[:, None] * plain[1] / divisor
        assert_close(got[1], want, dtype=dtype, terms=4, may_vanish=True, underflows=True)
    halved = getattr(ops, op)(**arrays, instances=46)
    whole = getattr(ops, op)(**arrays)
    assert same_bits(halved[0], whole[0])
    assert same_bits(2 * halved[1], whole[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", LOSSES)
@pytest.mark.parametrize("columns", [1, 10])
def test_a_weight_is_a_number_of_copies(op: str, columns: int, dtype: np.dtype) -> None:
    arrays = arrays_of(op, 6, columns, dtype)
    counts = np.array([3, 1, 0, 2, 1, 5])
    copies = {name: np.repeat(array, counts, axis=0) for name, array in arrays.items()}
    losses, gradient = getattr(ops, op)(**arrays, weight=counts.astype(dtype))
    copied_losses, copied_gradient = getattr(ops, op)(**copies)
    eps = float(np.finfo(dtype).eps)
    starts = np.cumsum(counts) - counts
    for i, (start, count) in enumerate(zip(starts, counts, strict=True)):
        here = slice(start, start + count)
        np.testing.assert_allclose(losses[i], copied_losses[here].sum(), rtol=8 * eps)
        want = copied_gradient[here].sum(axis=0)
        np.testing.assert_allclose(gradient[i], want, rtol=8 * eps, atol=eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", LOSSES)
def test_unit_weights_change_no_bit(op: str, dtype: np.dtype) -> None:
    for columns in COLUMNS:
        arrays = arrays_of(op, 23, columns, dtype)
        got = getattr(ops, op)(**arrays, weight=np.ones(23, dtype))
        assert same_bits(got, getattr(ops, op)(**arrays))


@pytest.mark.parametrize("op", LOSSES)
def test_against_the_reference(op: str) -> None:
    arrays, weight = arrays_of(op, 23, 10, np.float64), weights_of(23, np.float64)
    for options in ({}, {"instances": 2.5}, {"weight": weight}, {"weight": weight, "instances": 9}):
        got = getattr(ops, op)(**arrays, **options)
        want = getattr(reference, op)(**arrays, **options)
        for one, other in zip(got, want, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", LOSSES)
@pytest.mark.parametrize("columns", [1, 7])
def test_contract(op: str, columns: int, dtype: np.dtype) -> None:
    arrays = arrays_of(op, 5, columns, dtype) | {"weight": weights_of(5, dtype)}
    first = next(iter(arrays))
    check_contract(Call(op, arrays, {"instances": 3.0}), in_place=((first, 1),))


@pytest.mark.parametrize("op", LOSSES)
def test_no_instances(op: str) -> None:
    arrays = arrays_of(op, 0, 4, np.float32)
    losses, gradient = getattr(ops, op)(**arrays, weight=np.empty(0, np.float32))
    assert losses.shape == (0,)
    assert gradient.shape == (0, 4)


@pytest.mark.parametrize("op", LOSSES)
def test_errors(op: str) -> None:
    arrays = arrays_of(op, 4, 3, np.float32)
    first, f = next(iter(arrays)), getattr(ops, op)
    text = f"{op}: weight must have one value for each of the 4 rows, got 3"
    with raises(ValueError, text):
        f(**arrays, weight=np.ones(3, np.float32))
    with raises(ValueError, f"{op}: weight must have 1 dimension, got 2"):
        f(**arrays, weight=np.ones((4, 1), np.float32))
    with pytest.raises(TypeError, match=f"{op}: {first} and weight must have the same dtype"):
        f(**arrays, weight=np.ones(4))
    for weight, got in ((np.zeros(4), "0.0"), (-np.ones(4), "-4.0"), (np.full(4, np.nan), "nan")):
        with raises(ValueError, f"{op}: weight must have a positive finite sum, got {got}"):
            f(**arrays, weight=weight.astype(np.float32))
        losses, _ = f(**arrays, weight=weight.astype(np.float32), instances=1)
        assert losses.shape == (4,)
    for instances in (0, -1.5):
        with raises(ValueError, f"{op}: instances must be positive, got {instances}"):
            f(**arrays, instances=instances)
    with raises(TypeError, f"{op}: instances must be a number, got 'two'"):
        f(**arrays, instances="two")


@pytest.mark.parametrize("op", LOSSES)
def test_a_program_reads_the_weights_again(op: str, backend: str) -> None:
    if backend == "cuda":
        pytest.skip("a program on a GPU reads GPU memory, and these arrays are copied")
    arrays, weight = arrays_of(op, 6, 3, np.float32), np.ones(6, np.float32)
    f = getattr(ops, op)
    text = f"{op}: instances must be a number if a program records weights, got None"
    with raises(ValueError, text), cr.Program():
        f(**arrays, weight=weight)
    first = next(iter(arrays))
    out = np.empty(6, np.float32), np.empty_like(arrays[first])
    with cr.Program() as program:
        f(**arrays, weight=weight, instances=6, out=out)
    weight[:] = [3, 0, 1, 2, 0.5, 1]
    program.run()
    assert same_bits(out, f(**arrays, weight=weight, instances=6))
