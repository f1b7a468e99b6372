"""TF32 products: operands of 11 significant bits on tensor cores, float32 elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import chainrule
from assertions import DTYPES, assert_close, same_bits
from cases import Conv, ConvPool, conv_output_shape, normal, seeded
from chainrule import cuda, ops
from op_contract import Call, members

if cuda.why_off():
    pytest.skip(f"no GPU to use: {cuda.why_off()}", allow_module_level=True)

F32 = np.dtype("float32")
# Rounding two operands to 2^-11 each costs as much as this many float32 roundings of one term.
OPERANDS = 2**13 + 2
TRANSPOSES = [(False, False), (True, False), (False, True), (True, True)]


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    before = chainrule.get_matmul_precision()
    yield
    chainrule.set_matmul_precision(before)


def on_gpu(call: Call, precision: str) -> tuple[np.ndarray, ...]:
    chainrule.set_matmul_precision(precision)
    arrays = {name: cuda.array(a) for name, a in call.arrays.items()}
    return tuple(a.numpy() for a in members(call(**arrays)))


def float64_results(call: Call, *, absolute: bool) -> tuple[np.ndarray, ...]:
    """Return the CPU's float64 results, of the absolute values if ``absolute``."""
    wide = {name: a.astype("f8") for name, a in call.floats().items()}
    return members(call(**{name: np.abs(a) if absolute else a for name, a in wide.items()}))


def check(call: Call, *terms: int) -> tuple[bool, ...]:
    """Check bounds and repeatability. Return which results differ from float32."""
    strict = on_gpu(call, "highest")
    rough = on_gpu(call, "tf32")
    assert same_bits(on_gpu(call, "tf32"), rough)
    assert same_bits(on_gpu(call, "highest"), strict)
    wants, sizes = float64_results(call, absolute=False), float64_results(call, absolute=True)
    bounds: Any = zip(rough, strict, wants, sizes, terms, strict=False)
    for r, s, want, size, count in bounds:
        options = {"dtype": F32, "magnitude": size, "may_vanish": True}
        assert_close(s, want, terms=count, **options)
        assert_close(r, want, terms=count + OPERANDS, **options)
    return tuple(not same_bits(r, s) for r, s in zip(rough, strict, strict=True))


def matrices(m: int, n: int, k: int, flags: tuple[bool, bool], dtype: Any = F32) -> Call:
    rng = seeded(m, n, k)
    a = normal(rng, (k, m) if flags[0] else (m, k), dtype)
    b = normal(rng, (n, k) if flags[1] else (k, n), dtype)
    return Call("matmul", {"a": a, "b": b}, {"transpose_a": flags[0], "transpose_b": flags[1]})


@pytest.mark.parametrize("flags", TRANSPOSES)
def test_matmul(flags: tuple[bool, bool]) -> None:
    """Tiles of 128 x 32, without and with split-K."""
    assert check(matrices(8501, 31, 19, flags), 19) == (True,)
    assert check(matrices(125, 30, 4803, flags), 4803) == (True,)


def test_large_tiles() -> None:
    """Tiles of 128 x 128."""
    assert check(matrices(1285, 1157, 21, (False, True)), 21) == (True,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_small_products_keep_float32(dtype: np.dtype) -> None:
    for flags in TRANSPOSES:
        call = matrices(61, 67, 29, flags, dtype)
        assert same_bits(on_gpu(call, "tf32"), on_gpu(call, "highest"))


def test_float64_is_unaffected() -> None:
    call = matrices(8501, 31, 19, (False, False), np.float64)
    assert same_bits(on_gpu(call, "tf32"), on_gpu(call, "highest"))


def test_operands_round_to_nearest() -> None:
    """Ties away from zero. The other operand is 1, so nothing else is rounded."""
    m, n, ulp = 8501, 31, 2.0**-10
    a = np.zeros((m, 8), np.float32)
    for row, value in enumerate([1 + ulp / 2, 1 + ulp / 4, -1 - ulp / 2, 1 + 3 * ulp / 4, 1 + ulp]):
        a[row, 0] = value
    call = Call("matmul", {"a": a, "b": np.ones((8, n), np.float32)})
    (got,) = on_gpu(call, "tf32")
    want = np.array([1 + ulp, 1, -1 - ulp, 1 + ulp, 1 + ulp], np.float32)
    np.testing.assert_array_equal(got[:5], np.repeat(want[:, None], n, axis=1))


def test_nan_and_infinities_propagate() -> None:
    a, b = np.ones((8501, 9), np.float32), np.ones((9, 31), np.float32)
    a[0, 3], a[1, 4], a[2, 5], b[6, 7] = np.nan, np.inf, -np.inf, np.inf
    call = Call("matmul", {"a": a, "b": b})
    (rough,), (strict,) = on_gpu(call, "tf32"), on_gpu(call, "highest")
    np.testing.assert_array_equal(rough, strict)


def test_linear() -> None:
    n, inputs, units = 8501, 31, 29
    rng = seeded(n, inputs, units)
    shapes = {"x": (n, inputs), "weight": (units, inputs), "bias": (units,)}
    arrays = {name: normal(rng, shape, F32) for name, shape in shapes.items()}
    for activation in (None, "relu"):
        call = Call("linear", arrays, {"activation": activation})
        assert check(call, inputs + 1) == (True,)


def test_linear_backward() -> None:
    n, inputs, units = 8501, 31, 125
    rng = seeded(n, inputs, units)
    shapes = {"dy": (n, units), "x": (n, inputs), "weight": (units, inputs)}
    call = Call("linear_backward", {name: normal(rng, s, F32) for name, s in shapes.items()})
    assert check(call, units, n, n) == (True, True, False)


def convolution(case: Conv) -> dict[str, np.ndarray]:
    rng = seeded(case)
    shapes = {"x": case.x, "weight": case.weight, "dy": conv_output_shape(case)}
    return {name: normal(rng, shape, F32) for name, shape in shapes.items()}


def test_conv2d() -> None:
    case = Conv(1, 94, 97, 5, 9, 3, 3, padding=(1, 0))
    a = convolution(case)
    call = Call("conv2d", {"x": a["x"], "weight": a["weight"]}, case.options)
    assert check(call, 9 * case.c + 1) == (True,)
    options = case.options | {"input_shape": case.x}
    call = Call("conv2d_backward_input", {"dy": a["dy"], "weight": a["weight"]}, options)
    assert check(call, 9 * case.k) == (True,)


def test_conv2d_backward_weight() -> None:
    case = Conv(1, 70, 71, 29, 123, 1, 1)
    a = convolution(case)
    options = case.options | {"kernel_size": 1}
    call = Call("conv2d_backward_weight", {"dy": a["dy"], "x": a["x"]}, options)
    assert check(call, 70 * 71, 70 * 71) == (True, False)


def test_few_channels_keep_float32() -> None:
    """Their kernels do not use tensor cores."""
    case = Conv(1, 94, 97, 3, 9, 3, 3)
    a = convolution(case)
    call = Call("conv2d", {"x": a["x"], "weight": a["weight"]}, case.options)
    assert same_bits(on_gpu(call, "tf32"), on_gpu(call, "highest"))


def test_conv2d_pooled() -> None:
    case = ConvPool(1, 96, 97, 5, 9, 3, 3, window=2)
    a = convolution(case)
    options = case.options | {"window": case.window}
    call = Call("conv2d_pooled", {"x": a["x"], "weight": a["weight"]}, options)
    assert check(call, 9 * case.c + 1)[0]
    apart = on_gpu(Call("conv2d", call.arrays, case.options), "tf32")
    assert same_bits(on_gpu(call, "tf32"), ops.max_pool2d(apart[0], 2))


def pooled_gradient(case: ConvPool) -> dict[str, np.ndarray]:
    n, height, width, k = conv_output_shape(case)
    shape, rng = (n, height // 2, width // 2, k), seeded(case)
    argmax = rng.integers(0, 4, shape, dtype=np.uint16)
    return {"dy": normal(rng, shape, F32), "argmax": argmax}


def test_conv2d_pooled_backward() -> None:
    case = ConvPool(1, 94, 97, 5, 9, 3, 3, padding=(1, 0))
    arrays = pooled_gradient(case) | {"weight": convolution(case)["weight"]}
    options = case.options | {"window": 2, "input_shape": case.x}
    assert check(Call("conv2d_pooled_backward_input", arrays, options), 9 * case.k) == (True,)
    case = ConvPool(1, 70, 71, 29, 123, 1, 1)
    arrays = pooled_gradient(case) | {"x": convolution(case)["x"]}
    options = case.options | {"window": 2, "kernel_size": 1}
    call = Call("conv2d_pooled_backward_weight", arrays, options)
    assert check(call, 35 * 35, 35 * 35) == (True, False)


def test_products_with_a_zero_gradient_are_skipped() -> None:
    """On tensor cores they give NaN, so the tile is computed again in float32."""
    case = ConvPool(1, 94, 97, 5, 9, 3, 3, padding=(1, 0))
    arrays = pooled_gradient(case) | {"weight": convolution(case)["weight"]}
    arrays["weight"][4, 1, 1, 2] = np.inf
    arrays["dy"][..., 4] = 0
    options = case.options | {"window": 2, "input_shape": case.x}
    (dx,) = on_gpu(Call("conv2d_pooled_backward_input", arrays, options), "tf32")
    assert np.isfinite(dx).all()


def test_program_keeps_the_precision_of_each_operation() -> None:
    call = matrices(8501, 31, 19, (False, False))
    want = {precision: on_gpu(call, precision)[0] for precision in ("highest", "tf32")}
    assert not same_bits(want["highest"], want["tf32"])
    arrays = {name: cuda.array(a) for name, a in call.arrays.items()}
    for at_the_end in want:
        results = {}
        with chainrule.Program() as program:
            for precision in ("tf32", "highest"):
                chainrule.set_matmul_precision(precision)
                results[precision] = call(**arrays)
            chainrule.set_matmul_precision(at_the_end)
        for result in results.values():
            result.fill(cuda.zeros(result.shape))
        program.run()
        for precision, result in results.items():
            assert same_bits(result.numpy(), want[precision])
