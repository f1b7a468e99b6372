"""Tables in HTML for notebooks. They inherit the colors of the page, light or dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from .._optional import importing
from .charts import EpochRecord, RateTestLike
from .style import BLUE, ORANGE, rgb

# The page's own text color stays legible on the strongest shade.
STRONGEST = 0.45
# The largest number of epochs in a table, besides the best and the last.
LISTED_EPOCHS = 25
# Attribute, title and format of the columns of a history.
COLUMNS = (
    ("train_loss", "train loss", "{:.4f}"),
    ("train_accuracy", "train accuracy", "{:.2%}"),
    ("validation_loss", "validation loss", "{:.4f}"),
    ("validation_accuracy", "validation accuracy", "{:.2%}"),
    ("learning_rate", "learning rate", "{:.3g}"),
    ("seconds", "seconds", "{:.1f}"),
)


class MeasuredEpoch(EpochRecord, Protocol):
    """The measurements of one epoch that `history` lists. None if not measured."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


class HistoryLike(Protocol):
    """An object with the measurements of epochs, such as a `chainrule.History`."""

    @property
    def epochs(self) -> Sequence[MeasuredEpoch]: ...
    @property
    def stopped_by(self) -> str | None: ...


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    text_columns: Iterable[int] = (0,),
    shades: Mapping[tuple[int, int], str] | None = None,
    caption: str = "",
) -> str:
    """Return a table. All texts are escaped.

    Parameters
    ----------
    header : sequence of str
        The titles of the columns.
    rows : iterable of sequences of str
        The cells.
    text_columns : iterable of int
        The columns that are aligned to the left. Numbers are aligned to the right.
    shades : mapping of (row, column) to str
        The backgrounds of cells. See `shade`.
    caption : str
        The text above the table.

    Examples
    --------
    >>> from chainrule.plots.html import table
    >>> page = table(["class", "f1"], [["<cat>", "0.5"]])
    >>> "&lt;cat&gt;" in page, "<cat>" in page
    (True, False)
    """
    with importing:
        from html import escape

    left, shades = set(text_columns), shades or {}

    def cell(tag: str, text: str, row: int, column: int) -> str:
        align = "left" if column in left else "right"
        background = shades.get((row, column), "transparent")
        style = f"text-align:{align};background:{background};padding:2px 8px;white-space:nowrap"
        if tag == "th":
            style += ";border-bottom:1px solid currentColor"
        return f'<{tag} style="{style}">{escape(text)}</{tag}>'

    lines = [
        '<tr style="background:transparent">'
        + "".join(cell(tag, text, row, column) for column, text in enumerate(cells))
        + "</tr>"
        for row, cells in enumerate([header, *rows], start=-1)
        for tag in ("th" if row < 0 else "td",)
    ]
    title = paragraph(caption) if caption else ""
    return (
        f'{title}<div style="overflow-x:auto;margin-bottom:1em"><table style="color:inherit;'
        'border-collapse:collapse;background:transparent;font-variant-numeric:tabular-nums">'
        f"<thead>{lines[0]}</thead><tbody>{''.join(lines[1:])}</tbody></table></div>"
    )


def paragraph(text: str) -> str:
    """Return a paragraph of escaped text. Line breaks are kept."""
    with importing:
        from html import escape

    return f'<p style="white-space:pre-wrap">{escape(text)}</p>'


def shade(share: float, correct: bool) -> str:
    """Return a transparent background: blue for correct predictions, orange for mistakes.

    Parameters
    ----------
    share : float in [0, 1]
        The strength of the color.
    correct : bool
        Whether the cell counts correct predictions.

    Examples
    --------
    >>> from chainrule.plots.html import shade
    >>> shade(1.0, correct=True)
    'rgba(0,114,178,0.45)'
    """
    red, green, blue = rgb(BLUE if correct else ORANGE)
    return f"rgba({red},{green},{blue},{STRONGEST * share:.2f})"


def history(history: HistoryLike) -> str:
    """Return the epochs of a `History` as a table. Of many epochs, only some are listed.

    Examples
    --------
    >>> from chainrule.plots.html import history
    >>> from chainrule.training.history import Epoch, History
    >>> page = history(History([Epoch(1, 0.5, 0.75, None, None, 0.1, 1.0)], "interrupt"))
    >>> "0.5000" in page, "75.00%" in page, "validation" in page
    (True, True, False)
    """
    epochs = list(history.epochs)
    columns: dict[str, list[str]] = {"epoch": [str(each.epoch) for each in epochs]}
    for name, title, form in COLUMNS:
        values = [getattr(each, name) for each in epochs]
        if any(value is not None for value in values):
            columns[title] = ["" if value is None else form.format(value) for value in values]
    for name in dict.fromkeys(name for each in epochs for name in each.metrics):
        values = [each.metrics.get(name) for each in epochs]
        columns[name] = ["" if value is None else f"{value:.4g}" for value in values]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    measured = {i: e.validation_loss for i, e in enumerate(epochs) if e.validation_loss is not None}
    best = min(measured, key=measured.__getitem__, default=None)
    listed = list(range(len(rows)))
    if len(rows) > LISTED_EPOCHS:
        steps = range(0, len(rows), -(-len(rows) // LISTED_EPOCHS))
        listed = sorted({*steps, len(rows) - 1, *(() if best is None else (best,))})
    shades = {}
    if best is not None:
        column = list(columns).index("validation loss")
        shades[listed.index(best), column] = shade(0.5, correct=True)
    parts = [table(list(columns), [rows[i] for i in listed], text_columns=(), shades=shades)]
    if len(listed) < len(rows):
        parts.append(paragraph(f"{len(listed)} of {len(rows):,} epochs"))
    if history.stopped_by:
        parts.append(paragraph(f"stopped by {history.stopped_by}"))
    return "".join(parts)


def lr_find(result: RateTestLike) -> str:
    """Return some learning rates of a `RateTest` with their losses as a table.

    Examples
    --------
    >>> from chainrule.plots.html import lr_find
    >>> from chainrule.training.lr_find import RateTest
    >>> page = lr_find(RateTest([0.1, 1.0, 10.0], [2.0, 1.0, 0.9], [2.0, 1.0, 0.9], 1.0))
    >>> "suggested learning rate: 1<" in page
    True
    """
    count = len(result.rates)
    listed = set(range(0, count, -(-count // LISTED_EPOCHS))) | {count - 1}
    shades = {}
    text = "the loss does not fall: no learning rate is suggested"
    if result.suggestion is not None:
        best = list(result.rates).index(result.suggestion)
        listed.add(best)
        shades[sorted(listed).index(best), 0] = shade(0.5, correct=True)
        text = f"suggested learning rate: {result.suggestion:.3g}"
    rows = [
        [f"{values[i]:.4g}" for values in (result.rates, result.losses, result.smoothed)]
        for i in sorted(listed)
    ]
    header = ["learning rate", "loss", "smoothed"]
    return table(header, rows, text_columns=(), shades=shades) + paragraph(text)
