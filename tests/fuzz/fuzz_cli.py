"""Fuzz the command line: `chainrule.cli.main` with any arguments.

An input holds the arguments, separated by zero bytes. Training, the tutorial's computation and
downloads are replaced, because they take seconds. All paths stay below a temporary folder.
"""

from __future__ import annotations

import contextlib
import functools
import gettext
import importlib
import io
import os
import random
import re
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import PIL.Image
from fuzz_harness import (
    MEBIBYTE,
    Finding,
    Target,
    instrumented,
    main,
    mutate_bytes,
    temporary_folder,
)

import chainrule as cr
import chainrule.plots.charts
from chainrule import tutorial

with instrumented("chainrule.cli"):
    from chainrule.cli import exit_codes, options, training_run
    from chainrule.cli import main as command_line

FOLDER = temporary_folder()
ALLOWED = {exit_codes.SUCCESS, exit_codes.FAILURE, exit_codes.USAGE_ERROR}
DIGITS = cr.data.digits()
PATHS = (
    "model.safetensors", "digit.png", "absent", "folder", "folder/new", "notes.txt", "-", ".",
    "images", "table.csv", "table.safetensors",
)  # fmt: skip
OPTIONS = (
    "--network", "--data", "--embedded", "--epochs", "--batch-size", "--learning-rate", "--seed",
    "--device", "--threads", "--out", "--show", "--quick", "--verbose",
    "--format", "--target", "--task", "--drop", "--size", "--test",
    "--help", "-h", "--version", "--",
)  # fmt: skip
VALUES = (
    "cnn", "mlp", "lenet", "linear 64, relu, linear", "conv 4 3, pool 2, linear", "csv", "json",
    "kind", "size", "regression", "classification", "8", "28x28",
    "cpu", "cuda", "0", "1", "2", "-1", "nan", "inf", "-inf", "1e-3",
    "1e999", "1e-999", "0.1", "100000", "1000000000000", "18446744073709551616", "9" * 50,
    "9" * 5000, "", " 1", "0x10", "1_000", "١", "\ud800", "é", "%s", "{}", "\n", "\x1b[31m", *PATHS,
)  # fmt: skip
COMMANDS = ("mnist", "train", "evaluate", "predict", "tutorial", "info", "nothing")


def write_files() -> None:
    """Write the files that the arguments can name."""
    cr.Sequential(cr.Flatten(), cr.Linear(10), input_shape=(28, 28, 1)).save(
        FOLDER / "model.safetensors"
    )
    PIL.Image.fromarray(DIGITS[1].images[0, :, :, 0]).save(FOLDER / "digit.png")
    (FOLDER / "notes.txt").write_text("text\n")
    (FOLDER / "folder").mkdir(exist_ok=True)
    for index, name in enumerate(("one", "two") * 3):
        (FOLDER / "images" / name).mkdir(exist_ok=True, parents=True)
        PIL.Image.fromarray(DIGITS[1].images[index, :, :, 0]).save(
            FOLDER / "images" / name / f"{index}.png"
        )
    rows = [f"{index},{'red' if index % 2 else 'blue'},{'ab'[index % 2]}" for index in range(9)]
    (FOLDER / "table.csv").write_text("\n".join(["size,color,kind", *rows]))
    columns = [
        {"name": "size", "mean": 4.0, "scale": 2.0},
        {"name": "color", "categories": ["blue", "red"]},
    ]
    target = {"name": "kind", "categories": ["a", "b"]}
    network = cr.Sequential(cr.Linear(2), input_shape=(3,))
    notes = {"columns": columns, "target": target, "task": "classification"}
    network.metadata = {"data": "table", "table": notes}
    network.save(FOLDER / "table.safetensors")


def prepare() -> None:
    """Write the files, and replace what takes long."""
    write_files()
    os.chdir(FOLDER)
    with contextlib.suppress(ImportError):  # their import needs memory
        importlib.import_module("pandas")
        importlib.import_module("sklearn.preprocessing")
    for name in ("CHAINRULE_DATA", "NO_COLOR"):
        os.environ.pop(name, None)

    def absent(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("mnist: the data set must be in a known folder, got none")

    replaced: dict[tuple[Any, str], Any] = {
        (training_run.TrainingRun, "run"): lambda self, extra=None: exit_codes.SUCCESS,
        (tutorial, "build"): lambda quick, show: "<html>",
        (cr.data, "mnist"): absent,
        (cr.data, "digits"): lambda: DIGITS,
        (options, "set_num_threads"): lambda count: cr.set_num_threads(min(count, 2)),
    }
    # click translates its texts. The search for translations takes a third of the time.
    replaced[gettext, "find"] = functools.cache(gettext.find)
    for (owner, name), value in replaced.items():
        mock.patch.object(owner, name, value).start()


@contextlib.contextmanager
def captured() -> Iterator[dict[str, io.TextIOWrapper]]:
    """Replace the standard streams by files in memory, with the encoding of a terminal."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8") for name in ("stdout", "stderr")}
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams.values()
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = before


def arguments(data: bytes) -> list[str]:
    """Return the arguments of an input. Paths are made relative, and cannot leave the folder."""
    found = []
    for part in data.split(b"\0")[:12]:
        text = os.fsdecode(part)
        # No file outside the folder may be written, by an absolute path, by "..", or by "~".
        text = text.replace("..", "_").replace("~", "_")
        found.append(re.sub(r"^(--?[\w-]*=)?/+", r"\1", text))
    return found


def check(data: bytes) -> None:
    """Run the command line. It returns 0, 1 or 2, and an error has one message."""
    if not (FOLDER / "model.safetensors").is_file():
        prepare()
    call = arguments(data)
    if call[:1] == ["tutorial"]:
        write_files()  # the last page may have replaced one of them
    with captured() as streams:
        try:
            code: Any = command_line(call)
        except BaseException as error:
            raise Finding(f"{type(error).__name__} escaped from {call}: {error}") from error
    for stream in streams.values():
        stream.flush()
    texts = {name: stream.buffer.getvalue() for name, stream in streams.items()}
    if code not in ALLOWED:
        raise Finding(f"exit code {code!r} from {call}")
    if code != exit_codes.SUCCESS and not texts["stderr"].strip():
        raise Finding(f"exit code {code} without a message from {call}")
    if b"Traceback" in texts["stderr"] + texts["stdout"]:
        raise Finding(f"a traceback from {call}")


def mutate(data: bytes, source: random.Random) -> bytes:
    """Insert, replace or remove whole arguments, or change the bytes of one."""
    parts = data.split(b"\0")
    at = source.randrange(len(parts) + 1)
    words = source.choice((OPTIONS, VALUES, VALUES, COMMANDS, PATHS))
    word = _encoded(source.choice(words))
    kind = source.randrange(6)
    if kind == 0:
        parts.insert(at, word)
    elif kind == 1 and at < len(parts):
        parts[at] = word
    elif kind == 2 and at < len(parts):
        parts[at] = mutate_bytes(parts[at], source)
    elif kind == 3 and len(parts) > 1:
        del parts[min(at, len(parts) - 1)]
    elif kind == 4:
        parts[at:at] = [_encoded(source.choice(OPTIONS)), _encoded(source.choice(VALUES))]
    else:
        parts[at:at] = [_encoded(source.choice(OPTIONS)) + b"=" + _encoded(source.choice(VALUES))]
    return b"\0".join(parts)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def seeds() -> dict[str, bytes]:
    """Return command lines of each command, and the kinds that were answered wrongly."""
    lines = {
        "empty": [""],
        "help": ["--help"],
        "version": ["--version"],
        "info": ["info"],
        "predict": ["predict", "model.safetensors", "digit.png", "--show"],
        "predict-absent": ["predict", "model.safetensors", "absent", "digit.png"],
        "predict-text": ["predict", "notes.txt", "digit.png"],
        "tutorial": ["tutorial", "--quick", "--out", "page.html"],
        "tutorial-folder": ["tutorial", "--out", "folder"],
        "predict-table": ["predict", "table.safetensors", "table.csv", "--format", "json"],
        "evaluate": ["evaluate", "model.safetensors", "images"],
        "evaluate-table": ["evaluate", "table.safetensors", "table.csv"],
        "train": ["train", "images", "--network", "conv 4 3, relu, linear", "--size", "8"],
        "train-table": ["train", "table.csv", "--target", "kind", "--out", "folder/new"],
        "mnist": ["mnist", "--embedded", "--network", "mlp", "--out", "folder/new"],
        "mnist-data": ["mnist", "--data", "folder", "--epochs", "1", "--threads", "2"],
        "mnist-rate": ["mnist", "--embedded", "--learning-rate=nan"],
        "mnist-seed": ["mnist", "--embedded", "--seed=-1"],
        "mnist-batch": ["mnist", "--embedded", "--batch-size=1000000000000"],
        "mnist-cuda": ["mnist", "--embedded", "--device", "cuda"],
    }
    return {name: b"\0".join(map(_encoded, line)) for name, line in lines.items()}


TARGET = Target(
    name="cli",
    check=check,
    mutate=mutate,
    seeds=seeds,
    memory=lambda data: 2 * len(data) + 64 * MEBIBYTE,
    longest=1 << 9,
)

if __name__ == "__main__":
    sys.exit(main(TARGET))
