"""The commands `chainrule train`, `evaluate` and `predict` on images and tables."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli import main

INSTALL = 'the command line requires: pip install "chainrule[cli]"'
for module in ("click", "matplotlib", "PIL"):
    pytest.importorskip(module, reason=INSTALL)

Image = pytest.importorskip("PIL.Image")

# Names with a character of a mathematical formula, and one that cannot be printed.
NAMES = ("$dark$", "light\x07")
LONG = ("--epochs", "30", "--learning-rate", "0.1")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def pixels(index: int, light: bool) -> np.ndarray[Any, Any]:
    """Return an image of 8 × 8, dark or light, with noise."""
    noise = np.random.default_rng(index).integers(0, 60, (8, 8))
    return (noise + 190 * light).astype(np.uint8)


def write_images(folder: str, count: int = 20) -> None:
    for label, name in enumerate(NAMES):
        path = Path(folder, name)
        path.mkdir(parents=True)
        for index in range(count):
            Image.fromarray(pixels(index, label == 1)).save(path / f"{index:02}.png")


def write_table(path: str, count: int = 120) -> None:
    """Write a table whose kind is "big" if the size is above 2, and whose price is 10 size + 5."""
    rng = np.random.default_rng(0)
    lines = ["size,color,kind,price"]
    for size in rng.uniform(0, 4, count):
        color = rng.choice(["red", "blue"])
        lines.append(f"{size:.4f},{color},{'big' if size > 2 else 'small'},{10 * size + 5:.4f}")
    Path(path).write_text("\n".join(lines))


def idx(array: np.ndarray[Any, Any]) -> bytes:
    head = bytes([0, 0, 8, array.ndim])
    return head + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


def test_images_are_trained_evaluated_and_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    write_images("data")
    network = "conv 4 3, relu, maxpool 2, linear"
    assert main(["train", "data", "--network", network, *LONG, "--out", "out"]) == 0
    shown = capsys.readouterr().out
    assert "data: 32 training and 8 test images" in shown
    assert "30 epochs, batch size 32, peak learning rate 0.1, seed 0" in shown
    assert re.search(r"^Test accuracy 100.00 %$", shown, re.MULTILINE)
    assert "$dark$" in shown
    assert "light\\x07" in shown
    assert "\x07" not in shown
    names = {"history.png", "confusion.png", "filters.png", "mistakes.png"}
    assert {path.name for path in Path("out").iterdir()} == {
        "model.safetensors", "history.csv", *names,
    }  # fmt: skip
    model = "out/model.safetensors"
    assert cr.load(model).metadata == {"data": "images", "classes": list(NAMES)}

    assert main(["evaluate", model, "data"]) == 0
    assert "Accuracy 100.00 %\n  0 mistakes in 40 images" in capsys.readouterr().out

    dark, light = f"data/{NAMES[0]}/00.png", f"data/{NAMES[1]}/00.png"
    assert main(["predict", model, dark, "absent.png", dark]) == 1
    shown, err = capsys.readouterr()
    assert re.fullmatch(rf"({re.escape(dark)}: \$dark\$ [<>]?\d+\.\d %\n){{2}}", shown)
    assert "absent.png" in err
    assert main(["predict", model, dark, "--verbose", "--show"]) == 0
    assert len(re.findall(r"^ +\S+  \S+ +[<>]?\d+\.\d %$", capsys.readouterr().out, re.M)) == 2
    assert main(["predict", model, dark, light, "--format", "json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["prediction"] for record in records] == list(NAMES)
    assert [record["file"] for record in records] == [dark, light]
    for record in records:
        assert record["probability"] == max(record["probabilities"].values()) > 0.5
        assert sum(record["probabilities"].values()) == pytest.approx(1.0, abs=1e-6)


def test_the_classes_of_other_data_are_found_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    write_images("data", count=4)
    network = cr.Sequential(cr.Flatten(), cr.Linear(3), input_shape=(8, 8, 1))
    network.metadata = {"data": "images", "classes": ["another", *NAMES]}
    network.parameters["1.weight"][...] = 0
    network.parameters["1.bias"][...] = [0, 1, 0]
    network.save("model.safetensors")
    # The labels of the folder are 0 and 1. Those of the network are 1 and 2.
    Path("data", NAMES[1], "00.png").unlink()
    assert main(["evaluate", "model.safetensors", "data"]) == 0
    assert "Accuracy 57.14 %" in capsys.readouterr().out
    Path("data", NAMES[0]).rename("data/unknown")
    assert main(["evaluate", "model.safetensors", "data"]) == 1
    assert "classes must be among 'another', '$dark$'" in capsys.readouterr().err


def test_idx_folder_has_its_own_test_set(capsys: pytest.CaptureFixture[str]) -> None:
    Path("idx").mkdir()
    for half, count in (("train", 60), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 2
        images = np.stack([pixels(i, label == 1) for i, label in enumerate(labels.tolist())])
        Path("idx", f"{half}-images-idx3-ubyte").write_bytes(idx(images))
        Path("idx", f"{half}-labels-idx1-ubyte").write_bytes(idx(labels))
    assert main(["train", "idx", "--network", "mlp", *LONG]) == 0
    shown = capsys.readouterr().out
    assert "60 training and 20 test images" in shown
    assert "Test accuracy 100.00 %" in shown
    assert main(["evaluate", "chainrule-train/idx/model.safetensors", "idx"]) == 0
    assert "Accuracy 100.00 %" in capsys.readouterr().out


def test_table_of_classes(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    write_table("table.csv")
    options = ["--target", "kind", "--drop", "price", "--epochs", "20", "--out", "out"]
    assert main(["train", "table.csv", *options]) == 0
    shown = capsys.readouterr().out
    assert "96 training and 24 test rows" in shown
    found = re.search(r"^Test accuracy (\d+\.\d\d) %$", shown, re.MULTILINE)
    assert found
    assert float(found[1]) > 85
    assert {path.name for path in Path("out").iterdir()} == {
        "model.safetensors", "history.csv", "history.png", "confusion.png",
    }  # fmt: skip
    model = "out/model.safetensors"
    assert main(["evaluate", model, "table.csv"]) == 0
    assert "in 120 rows" in capsys.readouterr().out
    Path("new.csv").write_text("color,size\nred,3.9\ngreen,0.1\n")
    assert main(["predict", model, "new.csv", "--format", "csv"]) == 0
    shown, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert [row["prediction"] for row in rows] == ["big", "small"]
    assert [row["row"] for row in rows] == ["1", "2"]
    assert "column 'color' has a text that is unknown to the network in 1 row" in err
    assert main(["predict", model, "new.csv"]) == 0
    assert capsys.readouterr().out.startswith("new.csv:1: big ")
    Path("other.csv").write_text("size\n1\n")
    assert main(["predict", model, "other.csv"]) == 1
    assert "other.csv: table: column must be one of 'size', got 'color'" in capsys.readouterr().err


def test_table_of_numbers_is_in_its_own_units(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    write_table("table.csv")
    options = ["--target", "price", "--drop", "kind", "--epochs", "60", "--seed", "1"]
    assert main(["train", "table.csv", *options]) == 0
    found = re.search(r"^Test RMSE (\S+), R² (\S+)$", capsys.readouterr().out, re.MULTILINE)
    assert found
    # Prices are from 5 to 45. A RMSE of standardized prices would be below 1 even for the mean.
    assert float(found[2]) > 0.9
    assert 0.02 < float(found[1]) < 4
    Path("new.csv").write_text("size,color\n2.0,red\n")
    assert main(["predict", "chainrule-train/table/model.safetensors", "new.csv"]) == 0
    name, _, value = capsys.readouterr().out.rpartition(": ")
    assert name == "new.csv:1"
    assert float(value) == pytest.approx(25, abs=5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "absent"], 1, "No such file or directory: 'absent'"),
        (["train", "data", "--target", "x"], 2, "apply to tables, got a folder"),
        (["train", "data", "--size", "x"], 2, "neither a side, such as 28, nor ROWSxCOLUMNS"),
        (["train", "data", "--size", "0"], 2, "0 is not in the range"),
        (["train", "data", "--network", "vgg"], 2, 'end in "linear" without a number, got vgg'),
        (["train", "data", "--network", "dense 3, linear"], 2, "layer must be one of linear, conv"),
        (["train", "data", "--network", "linear x, linear"], 2, "must be decimal, got x"),
        (["train", "data", "--network", "linear, linear"], 2, "linear: missing 1 required"),
        (["train", "data", "--network", "dropout 2, linear"], 2, "Dropout: rate must be"),
        (["train", "data", "--network", "lenet"], 1, "--network lenet and images (8, 8, 1)"),
        (["train", "data/one"], 1, "must contain a folder of images for each class"),
        (["train", "table.csv", "--size", "8"], 2, "--size does not apply to a table"),
        (["train", "table.csv"], 2, "--target must be one of the columns size, color, kind, price"),
        (["train", "table.csv", "--target", "x"], 1, "table.csv: table: column must be one of"),
        (["train", "table.csv", "--target", "kind", "--network", "cnn"], 2, "requires images"),
        (["evaluate", "model.safetensors", "table.csv"], 1, "data must be images, got a file"),
        (["predict", "model.safetensors", "x", "--format", "csv", "--show"], 2, "do not apply"),
    ],
)
def test_failure_is_a_message_and_an_exit_code(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    write_table("table.csv")
    for name in ("one", "two"):
        Path("data", name).mkdir(parents=True)
        for index in range(5):
            Image.fromarray(pixels(index, light=False)).save(Path("data", name, f"{index}.png"))
    cr.Sequential(cr.Flatten(), cr.Linear(2), input_shape=(8, 8, 1)).save("model.safetensors")
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert message in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
    assert not Path("chainrule-train", "data", "model.safetensors").exists()


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"classes": ["a"]}, "classes of model.safetensors must be 2 names, got 1"),
        ({"classes": "ab"}, "must be 2 names, got other notes"),
        ({"classes": ["a", 3]}, "must be 2 names, got other notes"),
        ({"data": "table"}, "notes must describe the columns"),
        (
            {"data": "table", "table": {"columns": [{"name": "x", "mean": 0, "scale": 1}]}},
            "fit its",
        ),
    ],
)
def test_notes_of_a_file_are_checked(
    notes: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network = cr.Sequential(cr.Flatten(), cr.Linear(2), input_shape=(8, 8, 1))
    network.metadata = dict(notes)
    network.save("model.safetensors")
    assert main(["predict", "model.safetensors", "x.png"]) == 1
    assert message in capsys.readouterr().err
