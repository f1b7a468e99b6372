"""The tables of results in a notebook."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

import chainrule as cr
from chainrule.plots import html
from chainrule.training.evaluation import ClassScores
from chainrule.training.history import Epoch, History

COLORS = ("color:#", "color:black", "color:white", "background:#", "background:white")


class Tables(HTMLParser):
    """The cells of the tables and the texts of the paragraphs of a page, checked to be balanced."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.paragraphs: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        # The page inherits the colors of a light or a dark notebook.
        assert not [color for color in COLORS if color in page]

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "p":
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        else:
            self.paragraphs[-1] += data


def test_texts_are_escaped() -> None:
    text = '<script>alert("&")</script>'
    page = Tables(html.table([text], [[text]], caption=text))
    assert page.rows == [[text], [text]]
    assert page.paragraphs == [text]
    history = History([Epoch(1, 0.5, None, None, None, 0.1, 1.0, {text: 1.0})], text)
    page = Tables(history._repr_html_())
    assert page.rows[0][-1] == text
    assert page.paragraphs == [f"stopped by {text}"]


def test_history_lists_what_was_measured() -> None:
    epochs = [
        Epoch(1, 0.5, None, 0.25, None, 0.1, 1.0, {"r2": 0.5}),
        Epoch(2, 0.4, None, 0.75, None, 0.1, 1.0, {"r2": float("nan")}),
    ]
    page = Tables(History(epochs)._repr_html_())
    assert page.rows == [
        ["epoch", "train loss", "validation loss", "learning rate", "seconds", "r2"],
        ["1", "0.5000", "0.2500", "0.1", "1.0", "0.5"],
        ["2", "0.4000", "0.7500", "0.1", "1.0", "nan"],
    ]
    assert Tables(History()._repr_html_()).rows == [["epoch"]]


def test_a_long_history_lists_some_epochs_with_the_best_and_the_last() -> None:
    epochs = [Epoch(i, 1 / i, 0.5, abs(i - 318) + 1, 0.5, 0.1, 1.0) for i in range(1, 1001)]
    page = Tables(History(epochs)._repr_html_())
    listed = [int(row[0]) for row in page.rows[1:]]
    assert listed == sorted(listed)
    assert len(listed) <= 27
    assert {1, 318, 1000} <= set(listed)
    assert page.paragraphs == [f"{len(listed)} of 1,000 epochs"]


def test_evaluation_shows_every_number() -> None:
    confusion = np.array([[7, 1, 0], [0, 2, 3], [0, 0, 0]])
    scores = ClassScores(*np.array([[1.0, 0.5, 0.25], [0.1, 0.2, 0.3], [0.4] * 3, [8, 5, 0]]))
    metrics = {"accuracy": 9 / 13, "precision": 0.6, "recall": 0.7, "f1": 0.8, "own": 0.125}
    result = cr.Evaluation(0.5, 9 / 13, confusion, metrics, scores)
    page = Tables(result._repr_html_())
    assert page.paragraphs[0] == "loss 0.5000, accuracy 69.23% (9 of 13 correct)"
    assert page.rows == [
        ["", "0", "1", "2", "correct"],
        ["true 0", "7", "1", "·", "87.5 %"],
        ["true 1", "·", "2", "3", "40.0 %"],
        ["true 2", "·", "·", "·", "none"],
        ["class", "precision", "recall", "f1", "support"],
        ["0", "1.0000", "0.1000", "0.4000", "8"],
        ["1", "0.5000", "0.2000", "0.4000", "5"],
        ["2", "0.2500", "0.3000", "0.4000", "0"],
        ["macro", "0.6000", "0.7000", "0.8000", "13"],
        ["metric", "value"],
        ["own", "0.1250"],
    ]
    values = Tables(cr.Evaluation(0.5, None, None, {"r2": float("nan")})._repr_html_())
    assert values.rows == [["metric", "value"], ["r2", "nan"]]


@pytest.mark.parametrize("classes", [51, 300])
def test_evaluation_of_many_classes_is_short(classes: int) -> None:
    numbers = np.ones(classes)
    scores = ClassScores(numbers, numbers, numbers, numbers)
    confusion = np.eye(classes, dtype=np.int64)
    result = cr.Evaluation(0.5, 1.0, confusion, {"f1": 1.0}, scores)
    assert Tables(result._repr_html_()).rows == [["metric", "value"], ["f1", "1.0000"]]
    assert len(str(result).splitlines()) <= 104


def test_dead_units_are_a_table() -> None:
    result = cr.calculus.dead_units(*cr.examples.dead_unit())
    page = Tables(result._repr_html_())
    assert page.paragraphs == [str(result).splitlines()[0]]
    assert page.rows == [["layer", "ReLU units", "dead", "indices"], ["1", "1", "1", "0"]]
