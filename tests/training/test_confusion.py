"""The confusion matrix as text."""

from __future__ import annotations

import numpy as np
import pytest

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
