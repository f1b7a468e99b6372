"""Deep stacks of dense layers learn real digits by plain gradient descent.

These tests train 200 x 64, in seconds. ``python -m chainrule.examples deep`` trains 200 x 1024.
"""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule.examples import deep_network, train_deep
from chainrule.examples.__main__ import main


@pytest.fixture(scope="module")
def digits() -> tuple[cr.data.Dataset, cr.data.Dataset]:
    return cr.data.digits()


@pytest.mark.parametrize("seed", [0, 1])
def test_two_hundred_layers_learn(
    seed: int, digits: tuple[cr.data.Dataset, cr.data.Dataset]
) -> None:
    """In one epoch without momentum, the loss falls by more than half."""
    net = deep_network(200, 64, seed=seed)
    assert sum(name.endswith("weight") for name in net.parameters) == 200
    result = train_deep(net, *digits)
    assert result.loss_before == pytest.approx(np.log(10), abs=0.1)
    assert result.loss_after < result.loss_before / 2
    assert result.accuracy > 0.6


def test_he_initialization_or_unbounded_steps_do_not_learn(
    digits: tuple[cr.data.Dataset, cr.data.Dataset],
) -> None:
    """Without looks_linear or without clip, the loss stays near that of a random guess."""
    guessing = np.log(10)
    train, test = digits
    he = deep_network(200, 64, init="he")
    assert train_deep(he, train[:2000], test).loss_after > 0.99 * guessing
    try:
        unbounded = train_deep(deep_network(200, 64), train[:2000], test, clip=None).loss_after
    except cr.DivergenceError:
        unbounded = np.inf
    assert unbounded > 0.9 * guessing


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_five_hundred_layers_stay_finite_and_learn(
    dtype: str, digits: tuple[cr.data.Dataset, cr.data.Dataset]
) -> None:
    train, _ = digits
    net = deep_network(500, 32, dtype=dtype)
    history = cr.fit(
        net, train[:2000], loss=cr.CrossEntropy(), optimizer=cr.SGD(0.05, clip=1.0), epochs=2,
        progress=False,
    )  # fmt: skip
    assert np.isfinite(net.vector).all()
    assert np.isfinite(net.dvector).all()
    first, last = (epoch.train_loss for epoch in history.epochs)
    assert last < first < 1.05 * np.log(10)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["deep", "--depth", "5", "--width", "16"])
    shown = capsys.readouterr()
    assert shown.out.startswith("5 layers, 16 units wide, init looks_linear\nparameters: 13,546\n")
    assert "memory to train on batches of 128: " in shown.out
    assert "loss on the training images: 2." in shown.out
    assert shown.out.splitlines()[-1].startswith("accuracy on the test images: ")
    assert "epoch 1/1" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "2000000000"], "Sequential: its parameters need"),
        (["--width", "1"], 'Sequential: with init="looks_linear", hidden layers must have'),
        (["--width", "0"], "Linear: out must be at least 1, got 0"),
        (["--clip", "-1"], "SGD: clip must be in [0, inf), got -1.0"),
    ],
)
def test_the_command_reports_errors_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["deep", *arguments])
    assert ended.value.code == 1
    shown = capsys.readouterr().err
    assert shown.startswith(message)
    assert shown.count("\n") == 1
