"""The confusion matrix as text."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule.training.confusion import confusion_table, percent

CONFUSION = np.array([[40, 0, 1], [12, 30, 0], [0, 0, 0]])


def test_plain_table() -> None:
    assert confusion_table(CONFUSION) == [
        "        predicted",
        "           0   1   2  correct",
        "  true 0  40   .   1   97.6 %",
        "  true 1  12  30   .   71.4 %",
        "  true 2   .   .   .     none",
    ]


def test_names_set_the_width_of_the_columns() -> None:
    table = confusion_table(CONFUSION, ["cat", "horse", "ox"])
    assert table[1] == "                cat  horse     ox  correct"
    assert table[3] == "  true horse     12     30      .   71.4 %"


@pytest.mark.parametrize(("columns", "is_narrow"), [(28, True), (29, False), (200, False)])
def test_a_narrow_terminal_gets_one_line_per_class(columns: int, is_narrow: bool) -> None:
    table = confusion_table(CONFUSION, columns=columns)
    assert len(table) == (4 if is_narrow else 5)
    if is_narrow:
        assert table == [
            "  true  correct   most confused with",
            "     0   97.6 %   2 (1 time)",
            "     1   71.4 %   0 (12 times)",
            "     2     none",
        ]


def test_styles_change_the_texts_and_not_the_layout() -> None:
    roles: list[str] = []

    def style(text: str, role: str) -> str:
        roles.append(role)
        return f"<{text}>"

    styled = confusion_table(CONFUSION, style=style)
    assert [line.replace("<", "").replace(">", "") for line in styled] == confusion_table(CONFUSION)
    assert roles == [
        "title", "header", "correct", "zero", "mistake", "frequent", "correct", "zero", "zero",
        "zero", "correct",
    ]  # fmt: skip


def test_a_matrix_without_classes() -> None:
    assert len(confusion_table(np.zeros((0, 0), int))) == 2


def test_percent_is_100_or_0_only_if_the_share_is() -> None:
    shown = [percent(share) for share in (0.0, 1e-9, 0.001, 0.5, 0.9994, 0.99999, 1.0)]
    assert shown == ["0.0 %", "<0.1 %", "0.1 %", "50.0 %", ">99.9 %", ">99.9 %", "100.0 %"]


def test_many_classes_get_one_line_each_and_at_most_a_hundred() -> None:
    confusion = np.diag(np.arange(60))
    confusion[7, 3] = 2
    lines = confusion_table(confusion)
    assert len(lines) == 61
    assert lines[8] == "     7   77.8 %   3 (2 times)"
    # The classes with the smallest shares are listed, in order.
    confusion = 9 * np.eye(5000, dtype=np.int64)
    confusion[4000, 17], confusion[70, 70] = 1, 0
    lines = confusion_table(confusion)
    assert len(lines) == 102
    assert lines[-1] == "  and 4,900 more classes with a higher share"
    assert "  4000   90.0 %   17 (1 time)" in lines
    assert not any(line.split()[0] == "70" for line in lines)


def test_evaluate_refuses_a_matrix_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = 60_000
    net = cr.Sequential(cr.Linear(classes), input_shape=(4,), seed=0)
    x, y = np.random.default_rng(0).random((64, 4)).astype(np.float32), np.arange(64)
    monkeypatch.setenv("CHAINRULE_MEMORY", "4GiB")
    options = {"loss": cr.CrossEntropy(), "optimizer": cr.SGD(0.1), "epochs": 1, "batch_size": 16}
    history = cr.fit(net, (x, y), validation=(x, y), progress=False, **options)
    predicted = net.predict(x).argmax(axis=1)
    assert history.epochs[0].validation_accuracy == np.mean(predicted == y)
    with pytest.raises(
        MemoryError,
        match=r"evaluate: the confusion matrix of 60,000 classes needs 26\.8 GiB of memory, but",
    ):
        cr.evaluate(net, (x, y))


def test_validation_and_evaluate_agree() -> None:
    net = cr.Sequential(cr.Linear(4), input_shape=(3,), seed=0)
    rng = np.random.default_rng(2)
    x, y = rng.random((50, 3)).astype(np.float32), rng.integers(0, 4, 50)
    options = {"loss": cr.CrossEntropy(), "optimizer": cr.SGD(0.1), "epochs": 2}
    history = cr.fit(net, (x, y), validation=(x, y), progress=False, **options)
    result = cr.evaluate(net, (x, y))
    assert (history.epochs[-1].validation_loss, history.epochs[-1].validation_accuracy) == (
        result.loss,
        result.accuracy,
    )
    assert result.accuracy == np.trace(result.confusion) / 50
