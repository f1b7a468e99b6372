"""Charts of a training run: their contents, and that the user's matplotlib is not changed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import plots
from chainrule.data import Dataset
from chainrule.plots.charts import most_confident_mistakes
from chainrule.training.history import Epoch, History

INSTALL = 'plots need matplotlib: pip install "chainrule[cli]"'
pytest.importorskip("matplotlib", reason=INSTALL)
Figure = pytest.importorskip("matplotlib.figure", reason=INSTALL).Figure
Text = pytest.importorskip("matplotlib.text", reason=INSTALL).Text
Agg = pytest.importorskip("matplotlib.backends.backend_agg", reason=INSTALL).FigureCanvasAgg


def rendered(figure: Any) -> Any:
    """Return the pixels. In these tests a layout warning of matplotlib is an error."""
    canvas = Agg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(match=Text) if text.get_text()]


def overlapping(figure: Any) -> list[tuple[str, str]]:
    """Return the pairs of visible texts whose boxes overlap."""
    canvas = Agg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.findobj(match=Text)
        if text.get_text() and text.get_visible() and text.axes is not None
        if text.axes.axison
    ]
    return [
        (one, other)
        for index, (one, box) in enumerate(boxes)
        for other, beside in boxes[:index]
        if box.overlaps(beside)
        and min(box.x1, beside.x1) - max(box.x0, beside.x0) > 1
        and min(box.y1, beside.y1) - max(box.y0, beside.y0) > 1
    ]


def history_of(count: int, validation: bool = True, classes: bool = True) -> History:
    return History(
        [
            Epoch(
                epoch,
                1.0 / epoch,
                1.0 - 0.5 / epoch if classes else None,
                0.1 + 0.9 / epoch if validation else None,
                1.0 - 0.4 / epoch if validation and classes else None,
                0.1,
                1.0,
            )
            for epoch in range(1, count + 1)
        ]
    )


def test_history_draws_loss_and_accuracy() -> None:
    figure = plots.history(history_of(3))
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[1, 1], [2, 1 / 2], [3, 1 / 3]])
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [60.0, 80.0, 100 - 40 / 3])
    assert "Accuracy (validation: best 86.67 % in epoch 3)" in texts(figure)
    rendered(figure)


def test_history_omits_values_that_were_not_measured() -> None:
    (loss,) = plots.history(history_of(4, validation=False, classes=False)).axes
    assert [line.get_label() for line in loss.lines] == ["training"]
    _, accuracy = plots.history(history_of(4, validation=False)).axes
    assert [line.get_label() for line in accuracy.lines] == ["training"]
    assert accuracy.get_title() == "Accuracy"


@pytest.mark.parametrize("count", [1, 2, 30])
def test_history_has_integer_ticks_and_no_overlapping_text(count: int) -> None:
    figure = plots.history(history_of(count))
    rendered(figure)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert all(tick == round(tick) for tick in axes.get_xticks() if low <= tick <= high)
    assert overlapping(figure) == []


def test_history_plot_draws_the_same_figure() -> None:
    history = history_of(3)
    assert np.array_equal(rendered(history.plot()), rendered(plots.history(history)))


def test_history_without_an_epoch_raises() -> None:
    with pytest.raises(ValueError, match="history: history must have at least one epoch, got 0"):
        plots.history(History())


CONFUSION = np.array([[970, 10, 0], [2, 95, 3], [0, 0, 0]])


def test_confusion_matrix_shows_counts_and_percentages() -> None:
    figure = plots.confusion_matrix(CONFUSION)
    shown = texts(figure)
    assert {"970", "10", "2", "95", "3", "99.0 %", "95.0 %"} <= set(shown)
    assert "Confusion matrix: 98.61 % of 1,080 correct" in shown
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


@pytest.mark.parametrize(
    ("classes", "names"), [(2, None), (10, None), (10, "long names"), (20, None), (47, None)]
)
def test_confusion_matrix_has_no_overlapping_text(classes: int, names: str | None) -> None:
    counts = np.random.default_rng(0).poisson(3, (classes, classes)) + 1000 * np.eye(
        classes, dtype=int
    )
    labels = None if names is None else [f"class {index}" for index in range(classes)]
    figure = plots.confusion_matrix(counts, labels=labels)
    rendered(figure)
    assert overlapping(figure) == []


def test_confusion_matrix_raises_for_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(classes, classes\), got \(2, 3\)"):
        plots.confusion_matrix(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="labels must have 3 items, got 2"):
        plots.confusion_matrix(CONFUSION, labels=["a", "b"])


def test_confusion_matrices_of_many_classes_are_bounded(tmp_path: Any) -> None:
    figure = plots.confusion_matrix(np.eye(1000, dtype=np.int64))
    assert len(figure.axes[0].get_xticks()) == 50
    assert len(figure.axes[0].texts) == 0
    figure.savefig(tmp_path / "confusion.png")
    with pytest.raises(ValueError, match="must have at most 1000 classes, got 1001"):
        plots.confusion_matrix(np.zeros((1001, 1001), np.int8))


def test_an_empty_confusion_matrix_is_drawn() -> None:
    assert "Confusion matrix: empty" in texts(plots.confusion_matrix(np.zeros((3, 3), int)))


def network(*layers: cr.Layer, shape: tuple[int, ...]) -> cr.Sequential:
    return cr.Sequential(*layers, input_shape=shape)


@pytest.mark.parametrize(
    ("layers", "shape", "title"),
    [
        ((cr.Conv2d(6, 5),), (28, 28, 1), "First layer: 6 filters of 5 × 5"),
        ((cr.Conv2d(7, (3, 2)), cr.ReLU()), (28, 28, 3), "First layer: 7 filters of 3 × 2"),
        ((cr.ReLU(), cr.Conv2d(2, 3)), (9, 9, 4), "First layer: 2 filters of 3 × 3"),
        ((cr.Flatten(), cr.Linear(12)), (8, 6, 1), "First layer: the weights into 12 neurons"),
        ((cr.Linear(5),), (49,), "First layer: the weights into 5 neurons"),
    ],
)
def test_filters_draw_the_first_weights(
    layers: tuple[cr.Layer, ...], shape: tuple[int, ...], title: str
) -> None:
    figure = plots.filters(network(*layers, shape=shape))
    assert title in texts(figure)
    rendered(figure)


def test_filters_are_drawn_without_a_change() -> None:
    small = network(cr.Conv2d(2, 2), shape=(5, 5, 1))
    small.parameters["0.weight"][...] = np.arange(8).reshape(2, 2, 2, 1) - 4
    shown = plots.filters(small).axes[0].images[0].get_array().filled(np.nan)
    np.testing.assert_array_equal(shown, [[-4, -3, np.nan, 0, 1], [-2, -1, np.nan, 2, 3]])


def test_filters_raises_for_a_network_that_reads_no_image() -> None:
    with pytest.raises(
        ValueError, match="network must have at least one layer with weights, got 0"
    ):
        plots.filters(network(cr.ReLU(), shape=(3,)))
    with pytest.raises(ValueError, match=r"must read an image, got Linear\(2\) with 5 inputs"):
        plots.filters(network(cr.Linear(2), shape=(5,)))


PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.99, 0.01], [0.4, 0.6]])
TRUTH = np.array([1, 1, 1, 0], np.uint8)
IMAGES = np.arange(4 * 25, dtype=np.uint8).reshape(4, 5, 5, 1)


def test_the_most_confident_mistakes_are_first() -> None:
    assert most_confident_mistakes(PROBABILITIES, TRUTH, 10).tolist() == [2, 0, 3]
    assert most_confident_mistakes(PROBABILITIES, TRUTH, 1).tolist() == [2]
    assert most_confident_mistakes(PROBABILITIES, np.array([0, 1, 0, 1]), 5).tolist() == []


def test_predict_proba_is_the_same_with_and_without_a_softmax_layer() -> None:
    logits = network(cr.Linear(3), shape=(4,))
    softmax = network(cr.Linear(3), cr.Softmax(), shape=(4,))
    softmax.parameter_vector = logits.parameter_vector
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(logits.predict_proba(x), softmax.predict_proba(x))
    np.testing.assert_allclose(logits.predict_proba(x).sum(axis=1), 1.0, rtol=1e-6)


def test_mistakes_are_drawn_with_the_predicted_class() -> None:
    figure = plots.mistakes(PROBABILITIES, (IMAGES, TRUTH), count=2, labels=["cat", "dog"])
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["dog read as cat\n99.0 %", "dog read as cat\n90.0 %"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), IMAGES[2, :, :, 0])
    assert "The most confident of 3 mistakes in 4 images" in texts(figure)


@pytest.mark.parametrize("count", [1, 3, 25, 40])
def test_mistakes_have_no_overlapping_text(count: int) -> None:
    images = np.zeros((40, 28, 28, 1), np.uint8)
    probabilities = np.tile([0.999999, 0.000001], (40, 1))
    figure = plots.mistakes(probabilities, (images, np.ones(40, int)), count=count)
    rendered(figure)
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert "99.9 %" in figure.axes[0].get_title()  # not rounded to 100 %
    heading = figure.texts[0].get_window_extent()
    assert heading.x0 >= 0
    assert heading.x1 <= figure.bbox.x1


def test_mistakes_of_a_network_are_those_of_predict_proba() -> None:
    small = network(cr.Flatten(), cr.Linear(2), shape=(5, 5, 1))
    data = Dataset(IMAGES, TRUTH)
    drawn = rendered(plots.mistakes(small, data))
    assert np.array_equal(drawn, rendered(plots.mistakes(small.predict_proba(IMAGES), data)))


def test_mistakes_without_a_mistake_shows_a_text() -> None:
    figure = plots.mistakes(PROBABILITIES, (IMAGES, PROBABILITIES.argmax(axis=1)))
    assert texts(figure) == ["No mistakes in 4 images"]
    rendered(figure)


def test_mistakes_raises_for_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"\(N, H, W, 1 or 3\), got \(4, 25\)"):
        plots.mistakes(PROBABILITIES, (IMAGES.reshape(4, 25), TRUTH))
    with pytest.raises(ValueError, match="must have the same length, got 4, 3 and 4"):
        plots.mistakes(PROBABILITIES, (IMAGES, TRUTH[:3]))
    with pytest.raises(ValueError, match=r"mistakes: count must be at least 1, got 0"):
        plots.mistakes(PROBABILITIES, (IMAGES, TRUTH), count=0)


def test_the_charts_draw_on_the_axes_of_the_caller() -> None:
    figure = Figure(layout="constrained")
    first, second, third = figure.subplots(1, 3)
    assert plots.history(history_of(3), first) is figure
    assert plots.confusion_matrix(CONFUSION, second) is figure
    assert plots.filters(network(cr.Conv2d(2, 3), shape=(5, 5, 1)), third) is figure
    assert first.lines
    assert second.images
    assert third.images
    rendered(figure)


def test_axes_in_a_subfigure_return_the_whole_figure() -> None:
    figure = Figure()
    axes = figure.subfigures(1, 2)[0].subplots()
    assert plots.confusion_matrix(CONFUSION, axes) is figure


def test_a_dark_style_of_the_user_changes_nothing() -> None:
    from matplotlib import style

    figures = {}
    for name in ("default", "dark_background"):
        with style.context(name):
            figures[name] = rendered(plots.confusion_matrix(CONFUSION))
            figures[f"{name} history"] = rendered(plots.history(history_of(3)))
    for kind in ("", " history"):
        plain = figures[f"default{kind}"].astype(int)
        assert np.abs(plain - figures[f"dark_background{kind}"]).mean() < 1.0


def test_a_notebook_displays_a_figure() -> None:
    picture: Any = plots.confusion_matrix(CONFUSION)
    assert picture._repr_png_().startswith(b"\x89PNG")


def run(program: str) -> str:
    """Return the output of a program in a new Python process."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def test_the_first_chart_imports_matplotlib_but_never_pyplot() -> None:
    program = (
        "import sys, chainrule.plots as plots\n"
        "print('matplotlib' in sys.modules)\n"
        "plots.confusion_matrix([[1]])\n"
        "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    assert run(program).split() == ["False", "True", "False"]


def test_without_matplotlib_the_error_names_the_command_that_installs_it() -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from chainrule import plots\n"
        "try:\n    plots.confusion_matrix([[1]])\n"
        "except ImportError as error:\n    print(error)"
    )
    assert run(program) == 'matplotlib is not installed: pip install "chainrule[cli]"'


NAMES = ["indigo bunting, Passerina cyanea", "Ankle boot", "$5 and $6 notes", "T-shirt/top"]


@pytest.mark.parametrize("count", [1, 3, 12])
def test_long_class_names_of_mistakes_do_not_overlap(count: int) -> None:
    probabilities = np.eye(4)[np.arange(12) % 4] * 0.9
    labels = np.roll(np.arange(12), 3) % 4
    figure = plots.mistakes(probabilities, (np.ones((12, 5, 5, 1)), labels), count, labels=NAMES)
    rendered(figure)
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    assert len(titles) == count
    assert titles[0].get_text().splitlines()[-1] == "90.0 %"
    boxes = [title.get_window_extent() for title in titles]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:index])
    shown = "\n".join(title.get_text() for title in titles)
    assert "read as indigo bunting, P" in shown
    assert "Passerina cyanea" not in shown


def test_short_class_names_of_mistakes_are_on_one_line() -> None:
    probabilities = np.array([[0.9, 0.1]])
    data = np.ones((1, 5, 5, 1)), np.array([1])
    figure = plots.mistakes(probabilities, data, labels=["cat", "dog"])
    assert figure.axes[0].get_title() == "dog read as cat\n90.0 %"
