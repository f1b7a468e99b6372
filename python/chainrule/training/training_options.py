"""The options of a training as texts, which a checkpoint stores and compares."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..nn.network import Sequential
from .optimizers import Optimizer
from .stopping import StoppingRule
from .training_data import TrainingData

MAX_OPTION = 300  # characters: longer ones are stored with a hash

Options: TypeAlias = dict[str, str]


class Training(NamedTuple):
    """The parts of a training that a checkpoint compares."""

    network: Sequential
    data: TrainingData
    validation: TrainingData | float | None
    optimizer: Optimizer
    rules: Sequence[StoppingRule]
    epochs: int
    # Further options, by name.
    others: dict[str, object]


def option_texts(training: Training) -> Options:
    """Return the options of a training as texts."""
    network, optimizer = training.network, training.optimizer
    layers = f"{', '.join(map(described, network.layers))} on {network.input_shape}"
    held_out = training.validation
    options: dict[str, object] = {
        "network": f"{layers} in {network.dtype}",
        "the network's seed": network.seed,
        "data": _summary(training.data),
        "validation": _summary(held_out) if isinstance(held_out, TrainingData) else held_out,
        "loss": described(training.data.loss),
        "optimizer": described(optimizer),
        "stop": described(training.rules),
        **training.others,
    }
    if callable(optimizer.learning_rate):
        options["epochs, which the schedule depends on,"] = training.epochs
    return {name: _short(str(value)) for name, value in options.items()}


def _summary(data: TrainingData) -> str:
    checksum = 0
    for array in (data.x, data.target, data.weights):
        if array is not None and array.size:
            checksum = zlib.crc32(np.ascontiguousarray(array).data.cast("B"), checksum)
    shapes = f"x {data.x.dtype} {data.x.shape} and y {data.target.dtype} {data.target.shape}"
    return f"{shapes} of checksum {checksum:08x}"


def described(value: Any) -> str:
    """Return a text of an option that is the same in another process.

    A function is described by its name, not by its code.
    """
    if isinstance(value, tuple | list):
        return f"({', '.join(map(described, value))})"
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{value.__module__}.{name}"
    kind = type(value)
    if is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
    elif getattr(kind, "__repr__") is object.__repr__:  # noqa: B009  # mypy compares the types
        parts = getattr(value, "__dict__", {})
    else:
        return repr(value)
    return f"{kind.__qualname__}({', '.join(f'{k}={described(v)}' for k, v in parts.items())})"


def _short(text: str) -> str:
    """Return at most `MAX_OPTION` printable ASCII characters, with a hash of what is missing."""
    kept = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text[:MAX_OPTION])
    if kept == text:
        return text
    return (
        f"{kept} ... (SHA-256 {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]})"
    )
