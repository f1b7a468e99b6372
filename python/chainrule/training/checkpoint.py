"""Checkpoints: the state of a training after an epoch, from which `fit` continues to the bit.

A checkpoint is a safetensors file with these tensors, and a JSON document in its metadata:

- ``parameters``, and ``optimizer.NAME`` per array of the optimizer, such as its velocity: vectors
  with the layout of `Sequential.vector`.
- ``history``, float64 (epochs, columns): the measurements of the epochs.
- ``stop.I.NAME``: the arrays of stopping rule I, such as the best parameters.

The document contains the number of epochs, the count of training passes that dropout's masks depend
on, a checksum of the order of the instances, the numbers of the stopping rules, and the options of
the training, which must be the same when it is resumed. The order itself is not stored: its seed
gives it again.

A file is untrusted data. An invalid one raises ValueError before the training is changed.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from .. import devices
from .._files import (
    PathLike,
    expanded,
    explained_memory_errors,
    keep_previous,
    open_regular,
    previous_path,
    replace_file,
    require_replaceable,
    shown,
)
from .._types import Array
from ..nn import serialization
from ..nn.bounded_json import parse
from ..nn.serialization import KEY_OF_CHECKPOINTS
from .history import Epoch, History
from .optimizers import OptimizerState
from .stopping import Saved, StoppingRule, StoppingState
from .training_options import Options, Training, option_texts

FORMAT_VERSION = 1
MAX_EPOCH = 2**31 - 1
MAX_MESSAGE = 500  # characters: it can contain parts of the file
MAX_HEX = 24  # characters of a float64
# The measurements of an epoch. `Epoch.epoch` is the row. The columns of metrics follow, by their
# index, because a name can be any text.
COLUMNS = tuple(field.name for field in fields(Epoch) if field.name not in ("epoch", "metrics"))


class OtherTrainingError(ValueError):
    """Raised if a valid checkpoint is that of another training."""


class Document(NamedTuple):
    """The JSON document of a checkpoint, checked."""

    epoch: int
    passes: int
    steps: int
    order: int
    ended_by: int
    columns: list[str]
    options: Options
    schedule: Saved
    stop: list[Saved]


class Checkpoints:
    """The checkpoints of one call of `fit`.

    Parameters
    ----------
    path : path, or None
        The file that `write` replaces.
    training : tuple
        The fields of `Training`.
    optimizer : OptimizerState
    stopping : sequence of StoppingState
        The states of the rules.
    history : History
    order : ndarray of int
        The order of the instances, shuffled in place before each epoch.

    Raises
    ------
    ValueError
        If a rule has no `StoppingState.export`, or if the path cannot be written.
    OSError
        If the folder does not exist.
    """

    def __init__(
        self,
        path: PathLike | None,
        training: tuple[Any, ...],
        optimizer: OptimizerState,
        stopping: Sequence[StoppingState],
        history: History,
        order: Array,
    ) -> None:
        self.path, self.training = path, Training(*training)
        self.network, self.rules = self.training.network, self.training.rules
        self.optimizer, self.stopping = optimizer, stopping
        self.history, self.order, self._keeps_previous = history, order, True
        for rule, state in zip(self.rules, stopping, strict=True):
            if type(state).export is StoppingState.export:
                raise ValueError(
                    f"fit: checkpoint must be None unless each stopping rule's state has `export` "
                    f"and `restore`, got {rule!r}"
                )
        if path is not None:
            require_replaceable("fit: checkpoint", path)
            folder = os.path.dirname(previous_path("fit: checkpoint", path)) or "."
            os.stat(folder)
        self.options = option_texts(self.training)
        names: Any = self.training.others["metrics"]
        self._metric_columns = {f"metric {i}": name for i, name in enumerate(names)}

    def start(
        self,
        resume: PathLike | bool | None,
        epochs: int,
        shuffle: Callable[[Array], object] | None,
    ) -> tuple[int, str | None]:
        """Resume the training, or write the checkpoint before its first epoch.

        Parameters
        ----------
        resume : path, or bool, or None
            As in `fit`.
        epochs, shuffle
            As in `resume`.

        Returns
        -------
        epoch : int
            The number of finished epochs.
        source : str, or None
            The file that was read.
        """
        if resume is True and self.path is not None:
            found = self.path, previous_path("fit: resume", self.path)
            resume = (
                self.path if any(os.path.lexists(expanded("", path)) for path in found) else None
            )
        if resume is None or resume is False:
            self.write()
            return 0, None
        return self.resume(resume, epochs, shuffle)  # type: ignore[arg-type]  # `expanded` checks it

    # Writing

    def write(self, ended_by: StoppingRule | None = None) -> None:
        """Replace the file, and keep the one before as `previous_path`.

        Parameters
        ----------
        ended_by : StoppingRule
            The rule that has ended the training.

        Raises
        ------
        OSError, MemoryError
            If that fails. The old file is then unchanged.
        """
        if self.path is None:
            return
        records = self.history.epochs
        columns = [name for name in COLUMNS if records and getattr(records[0], name) is not None]
        arrays = self._arrays()
        if records:
            metrics = self._metric_columns if records[0].metrics else {}
            rows = [
                [getattr(record, name) for name in columns]
                + [record.metrics[name] for name in metrics.values()]
                for record in records
            ]
            arrays["history"] = np.array(rows, np.float64)
            columns += metrics
        document = {
            "version": FORMAT_VERSION,
            "epoch": len(records),
            "passes": self.network.count_pass(0),
            "steps": self.optimizer.steps,
            "order": zlib.crc32(self.order.data),
            "ended_by": [rule is ended_by for rule in self.rules].index(True) if ended_by else -1,
            "columns": columns,
            "options": self.options,
            "schedule": _encoded_state(self._schedule()),
            "stop": [_encoded_state(state.export()) for state in self.stopping],
        }
        text = f"fit: {shown(self.path)}: memory must suffice to write, got too little"
        with explained_memory_errors(text):
            parts = serialization.content(KEY_OF_CHECKPOINTS, json.dumps(document), arrays)
            if self._keeps_previous:
                keep_previous("fit: checkpoint", self.path)
            replace_file("fit: checkpoint", self.path, parts)
            self._keeps_previous = True

    def _schedule(self) -> Saved:
        """Return the numbers of the learning rate's schedule, such as `ReduceOnPlateau`'s."""
        schedule = self.optimizer.schedule
        return {} if schedule is None else schedule.export()

    def _arrays(self) -> dict[str, Array]:
        """Return the arrays of the file except for the history, without empty ones."""
        arrays = {"parameters": self.network.vector}
        for name, vector in self.optimizer.vectors.items():
            arrays[f"optimizer.{name}"] = vector
        for i, state in enumerate(self.stopping):
            for name, value in state.export().items():
                if not isinstance(value, Real):
                    arrays[f"stop.{i}.{name}"] = value
        return {name: devices.to_numpy(array) for name, array in arrays.items() if array.size}

    # Reading

    def resume(
        self, path: PathLike, epochs: int, shuffle: Callable[[Array], object] | None
    ) -> tuple[int, str]:
        """Set the training to the state of a checkpoint.

        If the file is missing or invalid, the one before is read. Nothing is changed if an error is
        raised, except for the order.

        Parameters
        ----------
        path : path
        epochs : int
            The largest number of epochs of this call.
        shuffle : callable
            Shuffles the order for the next epoch in place. None means that it never changes.

        Returns
        -------
        epoch : int
            The number of epochs of the checkpoint.
        source : str
            The file that was read.

        Raises
        ------
        OSError
            If there is no file, or if it cannot be read.
        ValueError
            If the file is invalid, or if it is the checkpoint of another training. The message
            names the option that differs.
        """
        source = shown(path)
        try:
            document, arrays = self._read(path, epochs)
        except OtherTrainingError:
            raise
        except (OSError, ValueError) as error:
            previous = previous_path("fit: resume", path)
            try:
                document, arrays = self._read(previous, epochs)
            except OtherTrainingError:
                raise
            except (OSError, ValueError):
                raise error from None
            # The damaged file must not replace the good one.
            self._keeps_previous = False
            reason = str(error).removeprefix("fit: resume: ")
            source = f"{shown(previous)}, because {reason}"
        if shuffle is not None:
            for _ in range(document.epoch):
                shuffle(self.order)
        if zlib.crc32(self.order.data) != document.order:
            raise OtherTrainingError(
                f"fit: resume: the order of the instances must be that of {shown(path)}, got "
                f"another one: NumPy's generator or its shuffle has changed"
            )
        self._apply(document, arrays)
        return document.epoch, source

    def _read(self, path: PathLike, epochs: int) -> tuple[Document, dict[str, Array]]:
        name = shown(path)
        short = f"fit: resume: {name}: memory must suffice to read, got too little"
        try:
            with explained_memory_errors(short), open_regular("fit: resume", path) as file:
                tensors, text, nbytes = serialization.read_header(name, file, KEY_OF_CHECKPOINTS)
                try:
                    document = self._document(parse("its document", text))
                except ValueError as error:
                    raise ValueError(f"{name}: {error}"[:MAX_MESSAGE]) from None
                self._require_same_training(name, document, epochs)
                expected = {k: (array.dtype, array.shape) for k, array in self._arrays().items()}
                if document.epoch:
                    expected["history"] = np.dtype(float), (document.epoch, len(document.columns))
                keys = serialization.check_tensors(name, tensors, nbytes, expected)
                arrays = serialization.read_arrays(name, file, keys, expected, "fit: resume")
                return document, arrays
        except OtherTrainingError:
            raise
        except ValueError as error:
            text = str(error).removeprefix("load: ").removeprefix("fit: resume: ")
            raise ValueError(f"fit: resume: {text}") from None

    def _require_same_training(self, name: str, document: Document, epochs: int) -> None:
        for option in [*self.options, *document.options]:
            saved, here = document.options.get(option), self.options.get(option)
            if saved != here:
                raise OtherTrainingError(
                    f"fit: resume: {option} must be as in {name}, {saved}, got {here}"
                )
        if document.epoch > epochs:
            raise OtherTrainingError(
                f"fit: resume: epochs must be at least the {document.epoch} of {name}, got {epochs}"
            )

    def _document(self, found: Any) -> Document:
        """Return the document. Raise ValueError if a key or a type is not that of `write`."""
        version = found.get("version") if isinstance(found, dict) else None
        if type(version) is not int or version != FORMAT_VERSION:
            raise ValueError(f"its version must be {FORMAT_VERSION}, got {version!r}")
        if found.keys() != {"version", *Document._fields}:
            raise ValueError(f"its keys must be {Document._fields}, got {list(found)}")
        del found["version"]
        document = Document(**found)
        integers = document.epoch, document.passes, document.steps, document.order
        if any(type(value) is not int or value < 0 for value in integers):
            raise ValueError(f"epoch, passes, steps and order must be integers, got {integers}")
        if document.epoch > MAX_EPOCH or max(integers[1:3]) >= 2**63:
            raise ValueError(f"epoch, passes and steps are out of range: {integers[:3]}")
        columns, options = document.columns, document.options
        if not isinstance(options, dict) or not _is_list_of(str, list(options.values())):
            raise ValueError("options must be texts")
        if options != self.options:
            return document  # an error that names the option follows
        required = {"train_loss", "learning_rate", "seconds"} if document.epoch else set()
        known = {*COLUMNS, *self._metric_columns}
        if not _is_list_of(str, columns) or not required <= set(columns) <= known:
            raise ValueError(f"columns must be of {COLUMNS}, got {columns!r}")
        if len(set(columns)) < len(columns):
            raise ValueError(f"columns must be unique, got {columns}")
        if type(document.ended_by) is not int or not -1 <= document.ended_by < len(self.rules):
            raise ValueError(f"ended_by must be the index of a rule, got {document.ended_by!r}")
        return document._replace(
            stop=self._stop(document.stop),
            schedule=_decoded_state("schedule", document.schedule, self._schedule()),
        )

    def _stop(self, found: Any) -> list[Saved]:
        """Return the numbers of the stopping rules, decoded."""
        if not _is_list_of(dict, found) or len(found) != len(self.stopping):
            raise ValueError(f"stop must have {len(self.stopping)} objects, got {found!r}")
        return [
            _decoded_state("stop", saved, state.export())
            for saved, state in zip(found, self.stopping, strict=True)
        ]

    def _apply(self, document: Document, arrays: dict[str, Array]) -> None:
        for i, (state, saved) in enumerate(zip(self.stopping, document.stop, strict=True)):
            prefix = f"stop.{i}."
            read = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            state.restore(saved | read)
        if self.optimizer.schedule is not None:
            self.optimizer.schedule.restore(document.schedule)
        if "parameters" in arrays:
            devices.write(self.network.vector, arrays["parameters"])
        for name, vector in self.optimizer.vectors.items():
            if vector.size:
                devices.write(vector, arrays[f"optimizer.{name}"])
        self.optimizer.steps = document.steps
        self.network.count_pass(document.passes - self.network.count_pass(0))
        if document.ended_by >= 0:
            self.history.stopped_by = repr(self.rules[document.ended_by])
        for i, row in enumerate(arrays.get("history", np.empty((0, 0))).tolist()):
            found: dict[str, Any] = dict(zip(document.columns, row, strict=True))
            metrics = {
                name: found.pop(column)
                for column, name in self._metric_columns.items()
                if column in found
            }
            values: dict[str, Any] = dict.fromkeys(COLUMNS) | found
            self.history.epochs.append(Epoch(i + 1, **values, metrics=metrics))


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _encoded(value: Any) -> Any:
    """Return a number as JSON has it. A float keeps its bits, also if it is infinite."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value).hex()
    return "array"


def _encoded_state(state: Saved) -> Saved:
    return {name: _encoded(value) for name, value in state.items()}


def _decoded_state(owner: str, saved: Any, here: Saved) -> Saved:
    if not isinstance(saved, dict) or saved.keys() != here.keys():
        raise ValueError(f"{owner} must have the keys {list(here)}, got {saved!r}")
    return {name: _decoded(name, saved[name], here[name]) for name in here}


def _decoded(name: str, saved: Any, here: Any) -> Any:
    """Return the number that `_encoded` has encoded. ``here`` has its type."""
    is_integer, is_number = isinstance(here, Integral), isinstance(here, Real)
    if is_integer and type(saved) is int and abs(saved) < 2**63:
        return saved
    if is_number and not is_integer and isinstance(saved, str) and len(saved) <= MAX_HEX:
        try:
            return float.fromhex(saved)
        except (OverflowError, ValueError):
            pass
    if saved == "array" and not is_number:
        return here  # replaced by the array, unless it is empty
    raise ValueError(f"{name} must be as this rule stores it, got {saved!r}")
