"""Checkpoints: a resumed training ends in the same bits, and damaged files are refused."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.training.history import History
from chainrule.training.stopping import StoppingRule, StoppingState
from small_training import LABELS, X, network, train

SUPPORT = Path(__file__).parents[1] / "support"


def measured(history: History) -> list[tuple[Any, ...]]:
    return [
        (e.epoch, e.train_loss, e.train_accuracy, e.validation_loss, e.validation_accuracy,
         e.learning_rate, e.metrics)
        for e in history.epochs
    ]  # fmt: skip


class StopError(Exception):
    pass


def stop_after(epoch: int) -> Any:
    """Return a callback that ends `fit` in an epoch before its checkpoint is written."""

    def callback(network: cr.Sequential, history: History) -> None:
        if len(history.epochs) == epoch:
            raise StopError

    return callback


def interrupted(path: Any, epoch: int, net: cr.Sequential | None = None, **arguments: Any) -> None:
    with pytest.raises(StopError):
        train(net or network(rate=0.3), checkpoint=path, callbacks=stop_after(epoch), **arguments)


def test_killed_trainings(tmp_path: Path) -> None:
    """More by hand: ``python tests/support/killed_trainings.py FOLDER 50 SEED``."""
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "killed_trainings.py"), str(tmp_path), "3", "1"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " kills, " in done.stdout


ALL: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 6,
    "validation": 0.3,
    "optimizer": cr.SGD(cr.OneCycle(0.2), momentum=0.9, nesterov=True, l2=1e-3, clip=0.5),
    "stop": [cr.GradientBelow(1e-12), cr.EarlyStopping(3)],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "arguments",
    [
        ALL,
        {"epochs": 4, "shuffle": False, "batch_size": None},
        {"epochs": 4, "loss": cr.SquaredError()},
        {"epochs": 4, "validation": 0.3, "optimizer": cr.AdamW(0.01), "metrics": ["f1", "top1"]},
        {
            "epochs": 4,
            "optimizer": cr.SGD(cr.ReduceOnPlateau(0.3, patience=1, tol=10), momentum=0.5),
            "stop": cr.TrainingLossPlateau(1e-9, patience=9),
        },
    ],
    ids=["all", "plain", "numbers", "adam", "plateau"],
)  # fmt: skip
def test_a_resumed_training_has_the_same_bits(
    tmp_path: Path, arguments: dict[str, Any], epoch: int, dtype: str
) -> None:
    path = tmp_path / "run.safetensors"
    x = X.astype(dtype)
    data = (x, x[:, :2]) if "loss" in arguments else (x, LABELS)
    whole, resumed = network(rate=0.3, dtype=dtype), network(rate=0.3, dtype=dtype)
    history = train(whole, data, **arguments)
    interrupted(path, epoch, network(rate=0.3, dtype=dtype), data=data, **arguments)
    resumed.forward(x, training=True)  # another count of passes
    resumed.parameter_vector += 1
    again = train(resumed, data, resume=path, **arguments)
    assert np.array_equal(resumed.parameter_vector, whole.parameter_vector)
    assert measured(again) == measured(history)
    assert again.stopped_by == history.stopped_by
    # The next training draws the same masks.
    assert np.array_equal(resumed.forward(x, training=True), whole.forward(x, training=True))


def test_files_of_a_training(tmp_path: Path) -> None:
    path = tmp_path / "run"
    net = network()
    train(net, checkpoint=path, epochs=2, optimizer=cr.SGD(0.1, momentum=0.5))
    assert sorted(os.listdir(tmp_path)) == ["run", "run.previous"]
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays, before = safetensors.load_file(path), safetensors.load_file(tmp_path / "run.previous")
    assert np.array_equal(arrays["parameters"], net.vector)
    assert arrays.keys() == {"parameters", "optimizer.velocity", "history"}
    assert (len(arrays["history"]), len(before["history"])) == (2, 1)
    with pytest.raises(ValueError, match="only checkpoint of fit"):
        cr.load(path)
    net.save(tmp_path / "net")
    with pytest.raises(
        ValueError, match=r"^fit: resume: .*net has no checkpoint of fit in its met"
    ):
        train(net, resume=tmp_path / "net")


def test_a_finished_training_and_more_epochs(tmp_path: Path) -> None:
    path, net, more = tmp_path / "run", network(rate=0.3), network(rate=0.3)
    history = train(net, checkpoint=path, epochs=3)
    again = network(rate=0.3)
    assert measured(train(again, resume=path, epochs=3)) == measured(history)
    assert np.array_equal(again.parameter_vector, net.parameter_vector)
    train(again, resume=path, epochs=5)
    train(more, epochs=5)
    assert np.array_equal(again.parameter_vector, more.parameter_vector)
    with pytest.raises(ValueError, match=r"epochs must be at least the 3 of .*run, got 2$"):
        train(again, resume=path, epochs=2)


def test_a_rule_ends_a_training_and_a_callback_pauses_it(tmp_path: Path) -> None:
    arguments: Any = {"validation": (X, 1 - LABELS), "epochs": 30, "optimizer": cr.SGD(0.5)}
    path, net, resumed = tmp_path / "run", network(), network()
    history = train(net, checkpoint=path, stop=cr.EarlyStopping(3), **arguments)
    again = train(resumed, resume=path, stop=cr.EarlyStopping(3), **arguments)
    assert len(history.epochs) < 30
    assert (measured(again), again.stopped_by) == (measured(history), "EarlyStopping(patience=3)")
    assert np.array_equal(resumed.parameter_vector, net.parameter_vector)
    paused = train(
        network(), checkpoint=path, epochs=4, callbacks=lambda n, h: h.stop(), validation=0.3,
        stop=cr.EarlyStopping(9),
    )  # fmt: skip
    assert (len(paused.epochs), paused.stopped_by) == (1, "callback")
    goes_on = train(network(), resume=path, epochs=4, stop=cr.EarlyStopping(9), validation=0.3)
    assert (len(goes_on.epochs), goes_on.stopped_by) == (4, None)


def test_resume_true(tmp_path: Path) -> None:
    path, net, whole = tmp_path / "run", network(rate=0.3), network(rate=0.3)
    arguments: Any = {"epochs": 4, "checkpoint": path, "resume": True}
    with pytest.raises(StopError):
        train(net, callbacks=stop_after(2), **arguments)
    history = train(net, **arguments)
    train(whole, epochs=4)
    assert np.array_equal(net.parameter_vector, whole.parameter_vector)
    assert len(history.epochs) == 4
    with pytest.raises(ValueError, match="checkpoint must be a path if resume is True, got None"):
        train(net, resume=True)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_the_previous_file_replaces_a_damaged_one(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, whole, net = tmp_path / "run", network(rate=0.3), network(rate=0.3)
    previous = tmp_path / "run.previous"
    train(whole, epochs=4)
    interrupted(path, 4, epochs=4)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else -1])
    good = previous.read_bytes()
    # The damaged file does not replace the good one, also if this training is interrupted.
    interrupted(path, 4, net, epochs=4, resume=path, progress=True)
    assert "fit: resumed after epoch 2 from" in capsys.readouterr().err
    assert previous.read_bytes() == good
    train(net, epochs=4, resume=path, checkpoint=path)
    assert np.array_equal(net.parameter_vector, whole.parameter_vector)
    previous.write_bytes(b"")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="run"):
        train(net, epochs=4, resume=path)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ({"optimizer": cr.SGD(0.2)}, r"optimizer must be as in .*run, SGD\(learning_rate=0\.1"),
        ({"optimizer": cr.SGD(abs)}, r"optimizer must be .*, got SGD\(learning_rate=builtins\.abs"),
        ({"batch_size": 5}, "batch_size must be as in .*run, 23, got 5"),
        ({"shuffle": False}, "shuffle"),
        ({"seed": 7}, "seed must be as in .*, 0, got 7"),
        ({"validation": 0.2}, "validation must be as in .*, None, got 0.2"),
        ({"stop": cr.GradientBelow(0.1)}, r"stop must be as in .*, \(\), got \(GradientBelow"),
        ({"data": (X + 1, LABELS)}, "data must be as in .* of checksum .*, got .* of checksum"),
        ({"data": (X, 1 - LABELS)}, "data"),
        ({"data": (X[:9], LABELS[:9])}, r"data must be .*\(23, 4\).*, got x float64 \(9, 4\)"),
        ({"loss": cr.SquaredError(), "data": (X, np.eye(2)[LABELS])}, "data|loss"),
        ({"net": network(seed=1)}, "the network's seed must be as in .*, 0, got 1"),
        ({"net": network(dtype="float32"), "data": (X.astype("f"), LABELS)}, "network must be"),
        ({"net": network(rate=0.2)}, r"network must be .*\(rate=0\.0\), .* got .*\(rate=0\.2"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_training_is_refused(
    tmp_path: Path, arguments: dict[str, Any], option: str
) -> None:
    path = tmp_path / "run"
    train(network(), checkpoint=path)
    options = dict(arguments)
    net = options.pop("net", network())
    before = net.parameter_vector
    with pytest.raises(ValueError, match=f"^fit: resume: (?:{option})"):
        train(net, options.pop("data", None), resume=path, **options)
    assert np.array_equal(net.parameter_vector, before)


@pytest.mark.parametrize("metrics", ["recall", ["recall", "f1"], ()])
def test_the_metrics_of_a_checkpoint_are_required(tmp_path: Path, metrics: Any) -> None:
    options: dict[str, Any] = {"validation": 0.3}
    train(network(), checkpoint=tmp_path / "run", metrics=["f1", "recall"], **options)
    message = r"^fit: resume: metrics must be as in .*run, \('f1', 'recall'\), got \("
    with pytest.raises(ValueError, match=message):
        train(network(), resume=tmp_path / "run", metrics=metrics, **options)


def test_a_schedule_fixes_the_epochs(tmp_path: Path) -> None:
    train(network(), checkpoint=tmp_path / "run", optimizer=cr.SGD(cr.Cosine(0.1)))
    with pytest.raises(ValueError, match="epochs, which the schedule depends on, must be as in"):
        train(network(), resume=tmp_path / "run", optimizer=cr.SGD(cr.Cosine(0.1)), epochs=9)


def test_paths(tmp_path: Path) -> None:
    for path, error, message in (
        (tmp_path / "absent" / "run", FileNotFoundError, "absent"),
        (tmp_path, IsADirectoryError, "path must be a regular file"),
        (tmp_path / ("n" * 250), ValueError, "path must have a name of at most 246 bytes"),
        (3, TypeError, "fit: checkpoint: path must be a str"),
    ):
        with pytest.raises(error, match=message):
            train(network(), checkpoint=path)
    with pytest.raises(TypeError, match="fit: resume: path must be a str"):
        train(network(), resume=3)
    link = tmp_path / "link"
    (tmp_path / "folder").mkdir()
    link.symlink_to(tmp_path / "folder" / "run")
    train(network(), checkpoint=link)
    assert sorted(os.listdir(tmp_path / "folder")) == ["run", "run.previous"]
    assert train(network(), resume=link).epochs


def test_a_rule_of_the_users_own(tmp_path: Path) -> None:
    class Counting(StoppingState):
        count = 0

        def after_epoch(self, record: cr.Epoch) -> bool:
            self.count += 1
            return self.count == 3

    class Saving(Counting):
        def export(self) -> Any:
            return {"count": np.int64(self.count), "weight": float("inf"), "none": np.zeros(0)}

        def restore(self, saved: Any) -> None:
            self.count = saved["count"]
            assert saved["weight"] == float("inf")

    class Rule(StoppingRule):
        def __init__(self, kind: type[StoppingState]) -> None:
            self.kind = kind

        def start(self, *arguments: Any) -> StoppingState:
            return self.kind()

    with pytest.raises(ValueError, match="each stopping rule's state has `export`"):
        train(network(), checkpoint=tmp_path / "run", stop=Rule(Counting))
    interrupted(tmp_path / "run", 3, network(), epochs=9, stop=Rule(Saving))
    history = train(network(), resume=tmp_path / "run", epochs=9, stop=Rule(Saving))
    assert len(history.epochs) == 3
    assert history.stopped_by is not None


def split(content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Return the header, the document, and the data."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    document = json.loads(header["__metadata__"]["chainrule.checkpoint"])
    return header, document, content[8 + length :]


def joined(header: dict[str, Any], document: Any, data: bytes) -> bytes:
    header["__metadata__"]["chainrule.checkpoint"] = json.dumps(document)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_hostile_files(tmp_path: Path) -> None:
    """Each change of a file is refused by a ValueError, or has no effect on what is read."""
    path, net = tmp_path / "run", network(rate=0.3, dtype="float32")
    data = X.astype("f"), LABELS
    train(net, data, checkpoint=path, **ALL)
    (tmp_path / "run.previous").unlink()
    content = path.read_bytes()
    values = (-1, 2**63, 10**30, 1.5, None, "x", [], {}, [[1]], "0x1p+99999", True)
    changed: list[bytes] = []
    for key in split(content)[1]:
        for value in values:
            header, document, rest = split(content)
            document[key] = value
            changed.append(joined(header, document, rest))
    for key in ("lowest_loss", "best_epoch", "vector"):
        for value in values:
            header, document, rest = split(content)
            document["stop"][1][key] = value
            changed.append(joined(header, document, rest))
    header, document, rest = split(content)
    document["columns"][0] = document["columns"][1]
    changed.append(joined(header, document, rest))
    for name in [name for name in header if name != "__metadata__"]:
        for key, value in (("dtype", "F64"), ("shape", [2**62, 2]), ("data_offsets", [0, 2**40])):
            header, document, rest = split(content)
            if header[name].get(key) != value:
                header[name][key] = value
                changed.append(joined(header, document, rest))
        header, document, rest = split(content)
        del header[name]
        changed.append(joined(header, document, rest))
    source = random.Random(1)
    for _ in range(200):
        mutated = bytearray(content)
        mutated[source.randrange(8 + int.from_bytes(content[:8], "little"))] = source.randrange(256)
        changed.append(bytes(mutated))
        changed.append(content[: source.randrange(len(content))])
    refused = 0
    for new in changed:
        path.write_bytes(new)
        other = network(rate=0.3, dtype="float32")
        before = other.parameter_vector
        message = ""
        try:
            train(other, data, resume=path, **ALL)
        except ValueError as error:
            message = str(error)
        if message:
            assert message.startswith("fit: resume: ")
            assert np.array_equal(other.parameter_vector, before)
            refused += 1
    assert refused > 0.9 * len(changed)
