"""Plans: one arena, no allocation in steady state, fused kernels, and the summary."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.available_memory import in_bytes
from chainrule.devices import ALIGNMENT
from chainrule.nn import architecture
from chainrule.nn.architecture import Architecture, BufferLayout, Extras, Mode
from chainrule.nn.layers import Layer

SMALL = (cr.Conv2d(2, 3), cr.ReLU(), cr.MaxPool2d(2), cr.Dropout(0.3), cr.Flatten(), cr.Linear(3))


def small(seed: int = 0, dtype: str = "float32") -> cr.Sequential:
    return cr.Sequential(*SMALL, input_shape=(6, 6, 1), seed=seed, dtype=dtype)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, 6, 6, 1), np.uint8)


def test_prediction_memory_is_bounded() -> None:
    net = cr.Sequential(
        cr.Conv2d(16, 3, padding="same"),
        cr.ReLU(),
        cr.Flatten(),
        cr.Linear(2),
        input_shape=(64, 64, 1),
    )
    x = np.zeros((2000, 64, 64, 1), np.uint8)
    batch = net.prediction_batch("predict", None)
    layout = net.architecture.layout
    assert layout(batch, Mode()).nbytes <= 64 * 2**20 < layout(2 * batch, Mode()).nbytes
    tracemalloc.start()
    net.predict(x[:1], batch_size=1)
    net.predict(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 70 * 2**20


def test_a_plan_is_one_aligned_arena_and_its_step_allocates_no_array() -> None:
    net = small()
    plan = net.new_plan(512, Mode(backward=True, dropout=True))
    views = [plan.input, plan.output, plan.losses, plan.doutput]
    for context in plan._forward:
        views += [
            context.x,
            *(context.pooled[:2] if context.pooled else [context.y]),
            *context.saved.values(),
        ]
    for context in plan._backward:
        views += [context.dy, *([] if context.dx is None else [context.dx])]
    for view in views:
        assert np.shares_memory(view, plan.arena)
        assert view.ctypes.data % ALIGNMENT == 0
    assert plan.arena.size == net.architecture.layout(512, plan.mode).nbytes
    x, labels, loss = plan.input.copy(), np.zeros(512, np.int64), cr.CrossEntropy()

    def step() -> None:
        plan.load(x)
        loss.compare(plan.forward(net.count_pass()), labels, plan.losses, plan.doutput)
        plan.backward()

    step()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    step()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    # The smallest activation of this batch, the logits, has 6 KiB.
    assert peak < 512 * 3 * 4


def test_fused_layers_store_no_preactivation_and_the_first_layer_no_dx() -> None:
    net = small()
    plan = net.new_plan(4, Mode(backward=True, dropout=True))
    convolution, following, *_ = plan._forward
    assert convolution.activation == "relu"
    # One kernel computes convolution, ReLU and pooling. Its only output is the pooled one.
    pool = convolution.pooled
    assert pool is not None
    assert convolution.y.size == 0
    assert np.shares_memory(pool.y, following.x)
    relu, last = plan._backward[-2:]
    assert last.layer == SMALL[0]
    assert last.dx is None
    # The backward pass does not read the convolution's own output: maximum and ReLU commute.
    assert np.shares_memory(relu.y, pool.y)
    assert np.shares_memory(relu.dy, last.dy)
    assert last.dy.shape == pool.y.shape
    dense = cr.Sequential(cr.Linear(4), cr.ReLU(), cr.ReLU(), input_shape=(3,))
    linear, unfused = dense.new_plan(4, Mode())._forward
    assert (linear.activation, unfused.activation) == ("relu", None)


def test_each_gradient_buffer_has_the_size_of_its_largest_array() -> None:
    """With sizes 4 <- 100 <- 7 <- 50 <- 9, one buffer holds 4, 7 and 9, the other 100 and 50."""
    layers = [cr.Linear(9), cr.Linear(50), cr.ReLU(), cr.Linear(7), cr.Linear(100), cr.Linear(4)]
    net = cr.Sequential(*layers, input_shape=(2000,))
    one, other = net.architecture.layout(16, Mode(backward=True)).gradients
    assert (one.shape, other.shape) == ((16 * 9,), (16 * 100,))
    # The last convolution has the gradient of its pooled output only.
    net = cr.Sequential(CONV, cr.ReLU(), *SMALL, input_shape=(10, 10, 1))
    one, other = net.architecture.layout(2, Mode(backward=True, dropout=True)).gradients
    assert (one.shape, other.shape) == ((2 * 8 * 8 * 3,), (2 * 3 * 3 * 2,))


CONV = cr.Conv2d(3, 3)


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([CONV, cr.ReLU(), cr.MaxPool2d(2)], {2: (0, 2)}),
        ([CONV, cr.MaxPool2d((1, 4))], {1: (0, (1, 4))}),
        ([CONV, cr.MaxPool2d((2, 3), stride=(2, 3))], {1: (0, (2, 3))}),
        ([CONV, cr.MaxPool2d(2, stride=(2, 2)), CONV, cr.ReLU(), cr.MaxPool2d(3)],
         {1: (0, 2), 4: (2, 3)}),
        ([cr.ReLU(), CONV, CONV, cr.ReLU(), cr.MaxPool2d(2), cr.Dropout(0.5)], {4: (2, 2)}),
        # overlapping windows, gaps between them, small ones
        ([CONV, cr.ReLU(), cr.MaxPool2d(3, stride=2)], {}),
        ([CONV, cr.MaxPool2d(2, stride=3)], {}),
        ([CONV, cr.MaxPool2d((1, 3))], {}),
        ([CONV, cr.MaxPool2d(1)], {}),
        # another layer in between, or no convolution
        ([CONV, cr.LeakyReLU(), cr.MaxPool2d(2)], {}),
        ([CONV, cr.Dropout(0.5), cr.MaxPool2d(2)], {}),
        ([CONV, cr.ReLU(), cr.ReLU(), cr.MaxPool2d(2)], {}),
        ([CONV, cr.ReLU(), cr.Dropout(0), cr.MaxPool2d(2)], {}),
        ([CONV, cr.MaxPool2d(2), cr.ReLU(), cr.MaxPool2d(2)], {1: (0, 2)}),
        ([cr.MaxPool2d(2)], {}),
        ([cr.ReLU(), cr.MaxPool2d(2), CONV], {}),
    ],
    ids=repr,
)  # fmt: skip
def test_pooled_convolutions(layers: list[Layer], found: dict[int, tuple[int, Any]]) -> None:
    net = cr.Sequential(*layers, input_shape=(18, 17, 2))
    assert net.architecture.pooled_convolutions == found


def test_subclasses_of_layers_are_not_fused() -> None:
    class Own(cr.Conv2d):
        pass

    net = cr.Sequential(Own(3, 3), cr.ReLU(), cr.MaxPool2d(2), input_shape=(8, 8, 1))
    assert net.architecture.pooled_convolutions == {}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_unfused_backward_pass_has_the_same_gradient(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fused, it needs less memory and agrees within the rounding of a sum, dropout included."""

    def gradients() -> tuple[dict[str, np.ndarray], int]:
        net = cr.Sequential(
            cr.Conv2d(8, 3), cr.ReLU(), cr.Conv2d(16, 3), cr.ReLU(), cr.MaxPool2d(2),
            cr.Dropout(0.25), cr.Conv2d(4, 2), cr.MaxPool2d(2), cr.Flatten(), cr.Linear(3),
            input_shape=(20, 19, 1), dtype=dtype,
        )  # fmt: skip
        x = np.random.default_rng(0).normal(size=(5, 20, 19, 1)).astype(dtype)
        _, found = net.loss_and_gradient(x, np.arange(5) % 3, cr.CrossEntropy(), training=True)
        return found, net.architecture.layout(5, Mode(backward=True, dropout=True)).nbytes

    fused, fewer_bytes = gradients()
    monkeypatch.setattr(architecture, "find_pooled_convolutions", lambda layers: {})
    unfused, more_bytes = gradients()
    assert fewer_bytes < more_bytes
    eps = np.finfo(dtype).eps
    for name, want in unfused.items():
        assert np.count_nonzero(want)
        scale = 1000 * eps * np.abs(want).max()
        np.testing.assert_allclose(fused[name], want, rtol=0, atol=scale, err_msg=name)


def test_idle_plans_are_reused() -> None:
    net, x = small(), images(8)
    with net.plan(8, Mode()) as first:
        pass
    with net.plan(8, Mode()) as again, net.plan(8, Mode()) as beside:
        assert again is first
        assert beside is not first
    for count in range(1, 40):
        net.forward(x[:1].repeat(count, axis=0))
    assert len(net.plans.idle) <= 8


def test_a_fit_computes_each_layout_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three epochs with a smaller last batch, in training and in validation."""
    computed: list[object] = []

    layout_buffers = architecture.layout_buffers

    def recording(network: Architecture, batch: int, mode: Mode, extras: Extras) -> BufferLayout:
        computed.append((batch, mode, tuple(extras)))
        return layout_buffers(network, batch, mode, extras)

    monkeypatch.setattr(architecture, "layout_buffers", recording)
    net, x = small(), images(20)
    cr.fit(
        net, (x, np.zeros(20, np.int64)), loss=cr.CrossEntropy(), optimizer=cr.SGD(0.1), epochs=3,
        batch_size=8, validation=0.25, progress=False,
    )  # fmt: skip
    assert len(computed) == len(set(computed)) > 3


def test_summary() -> None:
    summary = small().summary(batch_size=10)
    assert summary.parameters == small().parameter_vector.size == 47
    assert [row.parameters for row in summary.rows] == [20, 0, 0, 0, 0, 27]
    assert summary.rows[0].flops == 2 * 4 * 4 * 2 * 9
    # A fused convolution's own output is not stored. Each argmax has two bytes.
    assert [row.nbytes for row in summary.rows] == [0, 0, 8 * (4 + 2), 32, 0, 12]
    assert summary.flops < summary.training_flops < 3 * summary.flops
    text = str(summary)
    assert text == repr(summary)
    for part in (
        "Conv2d(2, 3)",
        "(4, 4, 2)",
        "parameters: 47",
        f"to train on batches of 10: {in_bytes(summary.nbytes)}\n  384 B parameters\n",
    ):
        assert part in text
    assert len({len(line) for line in text.splitlines()[2:8]}) == 1
    page = summary._repr_html_()
    assert page.count("<tr>") == 7
    assert "<td>Conv2d(2, 3)</td>" in page
    with pytest.raises(ValueError, match="summary: batch_size must be at least 1"):
        small().summary(0)
