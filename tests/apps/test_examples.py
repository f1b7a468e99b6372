"""The examples run, learn and are listed, each in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
import chainrule.examples
from chainrule.examples import images, own_layer, sweep, table
from chainrule.examples.__main__ import NAMES, main

# The kernels have separate tests on every backend.
pytestmark = pytest.mark.skipif(
    os.environ.get("CHAINRULE_BACKEND", cr.backends()[-1]) != cr.backends()[-1],
    reason="does not depend on the backend: runs on the best one",
)


def test_without_a_name_the_examples_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    folder = Path(cr.examples.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    assert set(NAMES) == files
    lines = [line.split() for line in shown.splitlines()]
    assert [line[0] for line in lines[2 : 2 + len(NAMES)]] == list(NAMES)
    assert all(line[1:] for line in lines[2 : 2 + len(NAMES)])
    assert str(folder) in shown
    main(["--help"])
    assert capsys.readouterr().out == shown


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tables"])
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("examples: name must be one of table, images, ")
    assert shown.endswith(", got tables\n")


@pytest.mark.parametrize("name", NAMES)
def test_every_example_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"python -m chainrule.examples {name}" in " ".join(capsys.readouterr().out.split())


def test_a_copied_file_runs(tmp_path: Path) -> None:
    """Each example imports chainrule alone, so that its file can be copied."""
    copy = tmp_path / "mine.py"
    copy.write_text(Path(str(table.__file__)).read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(copy), "--rows", "100"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("price: root mean square error ")


def test_table_regression_and_classification(tmp_path: Path) -> None:
    path = tmp_path / "houses.csv"
    table.write_houses(path)
    error, baseline = table.predict_prices(path)
    assert error < baseline / 4
    evaluation = table.predict_speed(path)
    assert evaluation.accuracy is not None
    assert evaluation.accuracy > 0.8
    x = table.read_columns(path, table.FEATURES)
    train, test = table.split(len(x))
    assert sorted([*train, *test]) == list(range(1000))
    np.testing.assert_allclose(table.standardize(x, train)[train].std(axis=0), 1, rtol=1e-3)


def test_images(capsys: pytest.CaptureFixture[str]) -> None:
    main(["images"])
    shown = capsys.readouterr().out
    assert "predicted" in shown
    assert shown.splitlines()[-1].startswith("an image of a cross: cross, probability ")
    train, test = images.draw_shapes(2000, 0), images.draw_shapes(500, 1)
    assert train.images.shape == (2000, 16, 16, 1)
    evaluation = cr.evaluate(images.train_classifier(train), test)
    assert evaluation.accuracy is not None
    assert evaluation.accuracy > 0.85


def test_images_are_saved_as_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    images.save_plots(images.train_classifier(images.draw_shapes(100), 1),
                      images.draw_shapes(50, 1), tmp_path / "plots")  # fmt: skip
    found = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert found == ["confusion.png", "filters.png", "mistakes.png"]


def test_a_sweep_does_not_depend_on_the_number_of_processes() -> None:
    one, two = (sweep.sweep([0.001, 0.1], [0], processes=count) for count in (1, 2))
    assert one == two
    assert [result.setting.learning_rate for result in one] == [0.001, 0.1]
    assert one[0].accuracy < one[1].accuracy


def test_a_user_defined_layer() -> None:
    network = own_layer.sine_network("float64")
    x, y = np.array([[-1.0], [0.2], [2.0]]), np.array([[0.5], [0.0], [1.0]])
    assert cr.calculus.check_gradient(network, x, y, cr.SquaredError()).passed
    _, error = own_layer.fit_sine()
    assert error < 0.05
    scaled = cr.Sequential(own_layer.Tanh(2.0), input_shape=(1,), dtype="float64")
    assert repr(scaled.layers[0]) == "Tanh(scale=2.0)"
    np.testing.assert_allclose(scaled.predict(x), np.tanh(2 * x), rtol=1e-15)
    assert cr.calculus.check_gradient(
        cr.Sequential(cr.Linear(2), own_layer.Tanh(2.0), input_shape=(1,), dtype="float64"),
        x, np.ones((3, 2)), cr.SquaredError(),
    ).passed  # fmt: skip


def test_three_unit(capsys: pytest.CaptureFixture[str]) -> None:
    main(["three_unit"])
    dead, leaky = capsys.readouterr().out.splitlines()[-2:]
    assert dead.startswith("a dead unit with ReLU(): loss 2.617 -> 2.617")
    assert leaky.endswith("-> 0.000 in 500 steps")
