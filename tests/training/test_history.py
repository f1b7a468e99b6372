"""History, evaluation and progress output."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from small_training import X, network, train

rng = np.random.default_rng(12)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("batch_size", [None, 1, 10])
def test_evaluate_from_the_definition(batch_size: int | None) -> None:
    net = cr.Sequential(
        cr.Linear(6), cr.Dropout(0.5), cr.Linear(3), input_shape=(4,), dtype="float64"
    )
    labels = rng.integers(0, 3, 23)
    logits = net.predict(X)
    result = cr.evaluate(net, (X, labels), batch_size=batch_size)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert result.loss == pytest.approx(-log_p[np.arange(23), labels].mean(), rel=1e-12)
    predicted = logits.argmax(axis=1)
    assert result.accuracy == (predicted == labels).mean()
    assert result.confusion.dtype == np.int64
    for true in range(3):
        for guess in range(3):
            count = ((labels == true) & (predicted == guess)).sum()
            assert result.confusion[true, guess] == count
    text = str(result)
    assert text.startswith(f"loss {result.loss:.4f}, accuracy {result.accuracy:.2%}")
    assert len(text.splitlines()) == 6 + 5  # the confusion matrix, and the table of classes


def test_history_as_table_and_text(tmp_path: Path) -> None:
    history = train(network(), epochs=3, validation=0.2)
    history.to_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["train_loss"]) for row in rows] == [e.train_loss for e in history.epochs]
    assert len(str(history).splitlines()) == 3
    history = train(network(), epochs=1)
    history.to_csv(tmp_path / "history.csv")
    assert ",,," in (tmp_path / "history.csv").read_text()


def test_progress_is_a_line_per_epoch_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(network(), validation=0.2, stop=cr.EarlyStopping(9), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    first, second, note = err.splitlines()
    assert first.startswith("epoch 1/2 (")
    assert second.startswith("epoch 2/2 (")
    assert "loss" in first
    assert "validation" in first
    assert note.startswith("fit: restored the weights of epoch ")
    train(network(), progress=False)
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_bar_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    train(network(), batch_size=5, progress=True)
    err = capsys.readouterr().err
    assert "epoch 1/2   0%|" in err
    assert err.rstrip().splitlines()[-1].startswith("epoch 2/2 (")
    monkeypatch.setitem(sys.modules, "tqdm.std", None)
    train(network(), progress=True)
    assert capsys.readouterr().err.startswith("epoch 1/2 (")
