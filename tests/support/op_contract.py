"""Contract of every operation: layouts, ``out=``, types and threads.

Each check takes a `Call`, an operation with valid arguments, and changes one argument.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import chainrule
from assertions import Canaried, layouts, same_bits
from chainrule import ops


@dataclass
class Call:
    """A call ``ops.<op>(**arrays, **options)``. Arguments of ``__call__`` replace these."""

    op: str
    arrays: dict[str, np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, **changes: Any) -> Any:
        return getattr(ops, self.op)(**(self.arrays | self.options | changes))

    def floats(self) -> dict[str, np.ndarray]:
        return {name: a for name, a in self.arrays.items() if a.dtype.kind == "f"}


def members(result: Any) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


def raises(error: type[Exception], text: str) -> Any:
    """Return a context that expects an error with exactly this text."""
    return pytest.raises(error, match=f"^{re.escape(text)}$")


def check_layouts(call: Call) -> None:
    """Assert that every layout gives the bits of a contiguous copy. Inputs must not change."""
    for name, a in call.arrays.items():
        for layout, view in layouts(a):
            before = view.tobytes()
            got = call(**{name: view})
            want = call(**{name: view.copy(order="C")})
            assert same_bits(got, want), f"{call.op}: {name} as {layout}"
            assert view.tobytes() == before, f"{call.op} wrote into {name} as {layout}"
    everything_fortran = {name: a.copy(order="F") for name, a in call.arrays.items()}
    assert same_bits(call(**everything_fortran), call())


class Exporter:
    """An object whose only array interface is DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


def check_dlpack(call: Call) -> None:
    exported = {name: Exporter(a) for name, a in call.floats().items()}
    assert same_bits(call(**exported), call())


def _outs(result: Any) -> tuple[Any, list[Canaried]]:
    """Return outputs of invalid values in the form of ``out=``, and their guarded arrays."""
    canaried = [Canaried(a.shape, a.dtype) for a in members(result)]
    arrays = tuple(c.array for c in canaried)
    return (arrays if isinstance(result, tuple) else arrays[0]), canaried


def check_out(call: Call) -> None:
    """Assert that ``out=`` is filled completely and returned, and that an invalid one raises."""
    want = call()
    out, canaried = _outs(want)
    got = call(out=out)
    assert all(g is o for g, o in zip(members(got), members(out), strict=True))
    assert same_bits(got, want)
    for canary in canaried:
        canary.check()

    several = isinstance(want, tuple)
    for i, a in enumerate(members(want)):

        def expect_error(error: type[Exception], text: str, bad: Any, i: int = i) -> None:
            with raises(error, f"{call.op}: out {text}"):
                call(out=(*want[:i], bad, *want[i + 1 :]) if several else bad)

        other = np.dtype("float64" if a.dtype == np.float32 else "float32")
        expect_error(TypeError, f"must be {a.dtype}, got {other}", a.astype(other))
        expect_error(
            TypeError, f"must be a {a.dtype} array, got list", a.tolist() if a.ndim else [0.0]
        )
        longer = np.empty((*a.shape, 2), a.dtype)
        expect_error(ValueError, f"must have shape {a.shape}, got {longer.shape}", longer)
        frozen = a.copy()
        frozen.flags.writeable = False
        expect_error(ValueError, "must be writeable", frozen)
        if a.ndim and a.size > 1:
            spaced = np.empty((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)[..., ::2]
            expect_error(ValueError, "must be C-contiguous", spaced)
        if a.ndim and a.shape[0] > 1:
            expect_error(ValueError, "must be C-contiguous", np.empty_like(a)[::-1])
        if sum(n > 1 for n in a.shape) > 1:
            expect_error(ValueError, "must be C-contiguous", np.asfortranarray(a))
    if several:
        count = len(want)
        for bad, what in [(want[0], str(want[0].dtype)), (list(want), "list")]:
            with raises(TypeError, f"{call.op}: out must be a tuple of {count} arrays, got {what}"):
                call(out=bad)
        text = f"{call.op}: out must be a tuple of {count} arrays, got"
        with raises(TypeError, f"{text} a tuple of {count - 1}"):
            call(out=want[:-1])
        with raises(TypeError, f"{text} None among them"):
            call(out=(*want[:-1], None))


def _lying_at(raw: np.ndarray, offset: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    return raw[offset : offset + size].view(dtype).reshape(shape)


def check_overlap(call: Call, in_place: tuple[tuple[str, int], ...] = ()) -> None:
    """Assert that only the pairs (input, output) of ``in_place`` may share memory, all of it."""
    want = call()
    several = isinstance(want, tuple)
    text = f"{call.op}: out must not overlap an input"
    for name, a in call.arrays.items():
        for i, w in enumerate(members(want)):
            for offset in sorted({0, 8, (a.nbytes - 1) // 8 * 8}):
                if offset >= a.nbytes or w.nbytes == 0:
                    continue
                exact = offset == 0 and a.shape == w.shape and a.dtype == w.dtype
                raw = np.zeros(a.nbytes + w.nbytes + offset + 8, np.uint8)
                source = _lying_at(raw, 0, a.shape, a.dtype)
                source[...] = a
                target = _lying_at(raw, offset, w.shape, w.dtype)
                fresh = tuple(np.empty_like(m) for m in members(want))
                out = (*fresh[:i], target, *fresh[i + 1 :]) if several else target
                if exact and (name, i) in in_place:
                    assert same_bits(call(**{name: source, "out": out}), want)
                else:
                    with raises(ValueError, text):
                        call(**{name: source, "out": out})
                    assert same_bits(source, a), f"{call.op} wrote before the error"
    if several:
        for i, w in enumerate(want):
            for j in range(i + 1, len(want)):
                if not (w.nbytes and want[j].nbytes):
                    continue
                raw = np.zeros(max(w.nbytes, want[j].nbytes), np.uint8)
                out = list(want)
                out[i] = _lying_at(raw, 0, w.shape, w.dtype)
                out[j] = _lying_at(raw, 0, want[j].shape, want[j].dtype)
                with raises(ValueError, f"{call.op}: out must not overlap another output"):
                    call(out=tuple(out))


def check_types(call: Call) -> None:
    """Assert that all arrays must be float32 or all float64, and that nothing is cast."""
    arrays = call.floats()
    first = next(iter(arrays))
    for name, a in arrays.items():
        bad: list[tuple[Any, str]] = [
            (a.astype(np.int64), "int64"),
            (a.astype(np.float16), "float16"),
            (a.astype(bool), "bool"),
            (a.astype(np.complex64), "complex64"),
            (a.astype(object), "object"),
            (a.astype(a.dtype.newbyteorder()), str(a.dtype.newbyteorder())),
            (a.tolist() if a.ndim else [1.0], "list"),
            ("text", "str"),
            (1.5, "float"),
        ]
        weighted_loss = name == "weight" and not {"labels", "target"}.isdisjoint(call.arrays)
        if name not in ("bias", "velocity") and not weighted_loss:
            bad.append((None, "NoneType"))
        kinds = "float32, float64 or uint8" if name == "source" else "float32 or float64"
        for value, what in bad:
            text = f"{call.op}: {name} must be a {kinds} array, got {what}"
            with np.errstate(all="ignore"), raises(TypeError, text):
                call(**{name: value})
        if name != first:
            other = np.dtype("float64" if a.dtype == np.float32 else "float32")
            text = (
                f"{call.op}: {first} and {name} must have the same dtype, got {a.dtype} and {other}"
            )
            with raises(TypeError, text):
                call(**{name: a.astype(other)})


def check_contract(call: Call, in_place: tuple[tuple[str, int], ...] = ()) -> None:
    check_layouts(call)
    check_dlpack(call)
    check_out(call)
    check_overlap(call, in_place)
    check_types(call)


def check_threads(call: Call, *, after: Any = None) -> None:
    """Assert equal bits for 1 to 4 threads. ``after`` returns what is written in place."""
    results = []
    for count in (1, 2, 3, 4):
        chainrule.set_num_threads(count)
        assert chainrule.get_num_threads() == count
        results.append(call() if after is None else after(call))
    assert all(same_bits(r, results[0]) for r in results[1:])
