"""No kernel accesses memory outside its arrays, which end, or begin, at an inaccessible page.

With CHAINRULE_FENCE the workspace ends at such a page, too, and is filled with NaN. This runs with
one thread, because with several threads only the last one's part ends at the page.

An invalid access ends the process, so a child process makes the calls and prints each name before:
``PYTHONPATH=tests/support python tests/runtime/test_bounds.py GROUP``. The results are compared,
too, because an invalid write between two arrays would not fault.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases import SMOOTH_ACTIVATIONS, Conv, ConvPool, Pool, normal, seeded
from guard_pages import PAGE, copy_guarded, guarded

SUPPORT = Path(__file__).resolve().parents[1] / "support"
Case = tuple[str, dict[str, np.ndarray], dict[str, Any]]

SWEEP = (*range(1, 36), 47, 48, 49, 63, 64, 65, 67)


def elementwise(dtype: Any) -> Iterator[Case]:
    for n in (*range(1, 70), 131, 1021):
        x, y, z = (normal(seeded(i), (n,), dtype) for i in range(3))
        yield "relu", {"x": x}, {}
        yield "relu_backward", {"dy": x, "y": y}, {}
        yield "leaky_relu", {"x": x}, {"slope": 0.1}
        yield "leaky_relu_backward", {"dy": x, "x": y}, {"slope": 0.1}
        for name, (saved, _) in SMOOTH_ACTIVATIONS.items():
            yield name, {"x": x}, {}
            yield f"{name}_backward", {"dy": x, saved: y}, {}
        yield "dropout", {"x": x}, {"rate": 0.3, "seed": 1}
        yield "squared_error", {"prediction": x, "target": y, "weight": z}, {"instances": 1}
        yield "huber", {"prediction": x, "target": y}, {"delta": 0.5}
        yield "binary_cross_entropy", {"logits": x, "target": y, "weight": z}, {"instances": 1}
        arrays = {"parameters": x, "gradient": y, "velocity": z}
        yield "sgd", arrays, {"learning_rate": 0.1, "momentum": 0.9, "l2": 0.1}
        arrays = {"parameters": x, "gradient": y, "first_moment": z, "second_moment": z**2}
        yield "adam", arrays, {"learning_rate": 0.1, "step": 3, "l2": 0.1, "weight_decay": 0.1}


def rows(dtype: Any) -> Iterator[Case]:
    for n in (*range(1, 70), 131):
        x, y = (normal(seeded(i), (3, n), dtype) for i in range(2))
        yield "softmax", {"x": x}, {}
        yield "log_softmax", {"x": x}, {}
        yield "softmax_backward", {"dy": x, "y": y}, {}
        yield "softmax_cross_entropy", {"logits": x, "labels": np.array([0, n - 1, n // 2])}, {}
        for op, name in (("squared_error", "prediction"), ("binary_cross_entropy", "logits")):
            yield op, {name: x, "target": y, "weight": y[:, 0].copy()}, {"instances": 1}
        yield "huber", {"prediction": x, "target": y}, {}
        indices = np.array([2, 0, 1, 2])
        yield "gather", {"source": x, "indices": indices}, {}
        yield "gather", {"source": (x * 50).astype(np.int8).view(np.uint8), "indices": indices}, {}


def products(dtype: Any) -> Iterator[Case]:
    sizes = [s for d in SWEEP for s in ((d, 5, 7), (5, d, 7), (5, 7, d), (13, d, 3), (d, 33, 2))]
    # In the last three, split-K uses deeper blocks than the whole sum would.
    cut = [(1, 4, 16385), (19, 23, 16385), (257, 255, 1029)]
    for m, n, k in [*sizes, (70, 300, 9), (9, 70, 600), (300, 9, 70), *cut]:
        a, b = normal(seeded(1), (m, k), dtype), normal(seeded(2), (k, n), dtype)
        bias, dy = normal(seeded(3), (n,), dtype), normal(seeded(4), (m, n), dtype)
        for flags in ((False, False), (True, False), (False, True), (True, True)):
            arrays = {"a": a.T.copy() if flags[0] else a, "b": b.T.copy() if flags[1] else b}
            yield "matmul", arrays, {"transpose_a": flags[0], "transpose_b": flags[1]}
        yield "linear", {"x": a, "weight": b.T.copy(), "bias": bias}, {"activation": "relu"}
        yield "linear_backward", {"dy": dy, "x": a, "weight": b.T.copy()}, {}
    for n, inputs, outputs in [(33, 517, 67), (128, 130, 70), (70, 1100, 14), (131, 130, 129)]:
        rng = seeded(n, inputs, outputs)
        x, dy, weight, bias = (
            normal(rng, shape, dtype)
            for shape in ((n, inputs), (n, outputs), (outputs, inputs), (outputs,))
        )
        x[rng.random(x.shape) < 0.8] = 0  # shapes of the sparse kernels
        yield "linear", {"x": x, "weight": weight, "bias": bias}, {}
        yield "linear_backward", {"dy": dy, "x": x, "weight": weight}, {}
        dy[rng.random(dy.shape) < 0.9] = 0
        yield "linear_backward", {"dy": dy, "x": x, "weight": weight}, {}


def images(dtype: Any) -> Iterator[Case]:
    sweep = [
        *(Conv(1, 4, 5, c, 3, 3, 2, padding=p) for c in SWEEP for p in (0, 1)),
        *(Conv(1, 4, 5, 3, k, 2, 3, padding=p) for k in SWEEP for p in (0, "same")),
        *(Conv(1, 4, w, 2, 5, 3, 3, stride=s, padding=1) for w in SWEEP for s in (1, 2)),
        *(Conv(2, h, 3, 3, 4, 2, 2, stride=3) for h in range(2, 20)),
        *(Conv(1, w, w, 1, 6, 5, 5) for w in range(5, 30)),
        *(Conv(1, 5, 9, c, 1, 1, s, stride=(2, 1)) for c in range(1, 17) for s in (1, 3)),
        *(Conv(2, 3, 3, c, 17, 1, 1) for c in SWEEP),
        Conv(1, 3, 4, 33, 40, 3, 3, padding=4),
        Conv(3, 12, 12, 32, 64, 3, 3),
        Conv(6, 9, 8, 17, 19, 3, 3, padding=1),
        Conv(8, 6, 6, 33, 40, 3, 3, padding=2),
    ]
    for conv in sweep:
        rng = seeded(conv)
        x, weight, bias = (normal(rng, s, dtype) for s in (conv.x, conv.weight, (conv.k,)))
        yield "conv2d", {"x": x, "weight": weight, "bias": bias}, conv.options
        import chainrule

        dy = chainrule.ops.conv2d(x, weight, **conv.options)
        options = conv.options | {"input_shape": conv.x}
        yield "conv2d_backward_input", {"dy": dy, "weight": weight}, options
        options = conv.options | {"kernel_size": (conv.r, conv.s)}
        yield "conv2d_backward_weight", {"dy": dy, "x": x}, options


def pools(dtype: Any) -> Iterator[Case]:
    sweep = [
        *(Pool(1, 5, 6, c, w) for c in (*range(1, 40), 64, 65) for w in (1, 2, 3)),
        *(Pool(2, 6, 7, c, (2, 3), (1, 2)) for c in range(1, 20)),
        *(Pool(1, w, w, 2, 2, 3) for w in range(2, 30)),
    ]
    for pool in sweep:
        import chainrule

        x = normal(seeded(pool), pool.x, dtype)
        options = {"window": pool.window, "stride": pool.stride}
        yield "max_pool2d", {"x": x}, options
        dy, argmax = chainrule.ops.max_pool2d(x, **options)
        options = options | {"input_shape": pool.x}
        yield "max_pool2d_backward", {"dy": dy, "argmax": argmax}, options


def pooled(dtype: Any) -> Iterator[Case]:
    sweep = [
        *(ConvPool(1, 5, 6, c, 3, 3, 2, padding=p) for c in SWEEP for p in (0, 1)),
        *(ConvPool(1, 5, 6, 3, k, 2, 3, padding=p) for k in SWEEP for p in (0, "same")),
        *(ConvPool(1, 5, w, 2, 5, 3, 3, s, 1, (1, 2)) for w in range(3, 36) for s in (1, 2)),
        *(ConvPool(2, h, 5, 3, 4, 2, 2, stride=3, window=(1, 2)) for h in range(2, 20)),
        *(ConvPool(1, w, w, 1, 6, 5, 5, window=w - 4) for w in range(5, 30)),
        *(ConvPool(1, 6, 5, c, 17, 1, 1, window=w) for c in SWEEP for w in (1, 2, 5)),
        ConvPool(1, 3, 4, 33, 40, 3, 3, padding=4, window=3),
        ConvPool(3, 12, 12, 32, 64, 3, 3),
        ConvPool(6, 9, 8, 17, 19, 3, 3, padding=1),
        *(ConvPool(1, 9, 8, c, k, r, r) for c in (1, 2, 3, 6) for k in (5, 70) for r in (3, 5)),
    ]
    for case in sweep:
        import chainrule

        rng = seeded(case)
        x, weight = (normal(rng, s, dtype) for s in (case.x, case.weight))
        together = {"x": x, "weight": weight, "bias": normal(rng, (case.k,), dtype)}
        yield "conv2d_pooled", together, case.options | {"window": case.window}
        y, argmax = chainrule.ops.max_pool2d(
            chainrule.ops.conv2d(x, weight, **case.options), case.window
        )
        # The last position of every window, which has the highest addresses.
        rows, columns = np.broadcast_to(case.window, 2)
        argmax[rng.random(y.shape) < 0.5] = rows * columns - 1
        dy = chainrule.ops.relu_backward(normal(rng, y.shape, dtype), y)
        options = case.options | {"window": case.window}
        arrays = {"dy": dy, "argmax": argmax}
        yield (
            "conv2d_pooled_backward_input",
            arrays | {"weight": weight},
            options | {"input_shape": case.x},
        )
        yield (
            "conv2d_pooled_backward_weight",
            arrays | {"x": x},
            options | {"kernel_size": (case.r, case.s)},
        )


GROUPS: dict[str, Callable[[Any], Iterator[Case]]] = {
    "elementwise": elementwise,
    "rows": rows,
    "products": products,
    "images": images,
    "pools": pools,
    "pooled": pooled,
}


# Groups whose operations use a workspace.
FENCED = ("products", "images", "pooled")


def members(result: Any) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)


def perform(case: Case, *, at_end: bool) -> None:
    """Assert that a call next to inaccessible pages gives the bits of ordinary memory."""
    import chainrule
    from chainrule import ops

    op, arrays, options = case
    chainrule.set_num_threads(1 if at_end else 2)
    fenced = {name: copy_guarded(a, at_end=at_end) for name, a in arrays.items()}
    if op in ("sgd", "adam"):
        plain = {name: a.copy() for name, a in arrays.items()}
        getattr(ops, op)(**plain, **options)
        getattr(ops, op)(**fenced, **options)
        pairs = [(fenced[name], plain[name]) for name in arrays]
    else:
        call = getattr(ops, op)
        want = call(**arrays, **options)
        outs = tuple(guarded(w.shape, w.dtype, at_end=at_end) for w in members(want))
        call(**fenced, **options, out=outs if isinstance(want, tuple) else outs[0])
        pairs = list(zip(outs, members(want), strict=True))
    for got, expected in pairs:
        assert got.tobytes() == expected.tobytes()


def main(group: str) -> None:
    if group == "overrun":
        array = guarded((3,), np.float32, at_end=True)
        print("overrun", flush=True)
        np.lib.stride_tricks.as_strided(array, (4,)).sum()
        return
    for dtype in (np.float32, np.float64):
        for case in GROUPS[group](dtype):
            shapes = {name: a.shape for name, a in case[1].items()}
            for at_end in (True, False):
                print(case[0], np.dtype(dtype), shapes, case[2], f"{at_end=}", flush=True)
                perform(case, at_end=at_end)
    if group in FENCED:
        assert int(Path("/proc/self/statm").read_text().split()[0]) * PAGE > 2**32, "no fence"


def run(group: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return subprocess.run(
        [sys.executable, __file__, group],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
        check=False,
    )


@pytest.mark.parametrize("group", GROUPS)
def test_no_access_outside_the_arrays(group: str, backend: str) -> None:
    done = run(group, CHAINRULE_BACKEND=backend, CHAINRULE_FENCE="1")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{done.returncode} in {lines[-1:]}\n{done.stderr[-2000:]}"
    assert len(lines) > 500


def test_an_access_outside_an_array_is_detected() -> None:
    """Access to one element after a guarded array ends the process, so the tests above can fail."""
    done = run("overrun")
    assert done.stdout == "overrun\n"
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGBUS)


if __name__ == "__main__":
    main(sys.argv[1])
