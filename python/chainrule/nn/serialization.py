"""Network files: safetensors, with the architecture as JSON in the metadata.

A file is untrusted data. An invalid file raises one ValueError that starts with ``load:``. It
cannot run code, and cannot make the loader use memory out of proportion to the file's size.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors
import safetensors.numpy

from .._types import Array
from .._validation import integer
from .architecture import Architecture
from .layers import KINDS, Layer

FORMAT_VERSION = 1
KEY = "chainrule"
MAX_LAYERS = 10_000
DTYPES = {"float32": "F32", "float64": "F64"}
# Formats whose readers can run code or unpack without bound.
FOREIGN = {
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".npz": "NumPy",
    ".npy": "NumPy",
}
STALE_SECONDS = 3600

_deserialize: Callable[[bytes], list[tuple[str, dict[str, Any]]]] = safetensors.deserialize


@dataclass(frozen=True)
class Stored:
    """The content of a file, except for the weights."""

    architecture: Architecture
    seed: int


def write(path: str | os.PathLike[str], stored: Stored, arrays: Mapping[str, Array]) -> None:
    """Write a network atomically.

    The bytes are written to a temporary file in the same folder. The file is flushed and renamed,
    and the folder is flushed. A new file has the mode that ``open`` gives. An existing file keeps
    its mode.

    Parameters
    ----------
    path : path
    stored : Stored
    arrays : mapping of name -> ndarray
        The weights, on the CPU.

    Raises
    ------
    OSError
        If writing fails. An existing file is then unchanged.
    ValueError
        If the name ends like another format, such as ``net.pt``.
    """
    target = Path(os.path.realpath(path))
    if target.suffix in FOREIGN:
        raise ValueError(
            f"save: path must not end in {target.suffix}, got {target.name}: "
            f"the format is safetensors"
        )
    architecture = stored.architecture
    document = {
        "version": FORMAT_VERSION,
        "input_shape": architecture.shapes[0],
        "seed": stored.seed,
        "dtype": str(architecture.dtype),
        "layers": [
            {"kind": type(layer).__name__}
            | {item.name: getattr(layer, item.name) for item in fields(layer)}
            for layer in architecture.layers
        ],
    }
    # safetensors 0.8.0 writes an array that is not C-contiguous wrongly, without an error. Its own
    # file writer neither flushes nor respects the umask. So arrays are in C order, and it returns
    # bytes only.
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = safetensors.numpy.save(contiguous, metadata={KEY: json.dumps(document)})
    _replace(target, data)


def _replace(target: Path, data: bytes) -> None:
    temporary = target.parent / f".{target.name}.{os.urandom(8).hex()}.tmp"
    for stray in target.parent.glob(f".{_literal(target.name)}.{'[0-9a-f]' * 16}.tmp"):
        # A process that was killed while writing left it. A recent one may still be in use.
        with contextlib.suppress(OSError):
            if time.time() - stray.stat().st_mtime > STALE_SECONDS:
                stray.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def read(path: str | os.PathLike[str]) -> tuple[Stored, dict[str, Array]]:
    """Return the content of a file that `write` wrote.

    The arrays are read-only and own their memory. The file is not mapped: if a mapped file is
    overwritten, its reader sees changed data or is killed.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not a network of this library. The message starts with ``load:``.
    """
    source = Path(path)
    if source.suffix in FOREIGN:
        hint = (
            "; in PyTorch, safetensors.torch.save_file(model.state_dict(), ...) converts weights"
            if FOREIGN[source.suffix] == "PyTorch"
            else ""
        )
        _invalid(
            f"{source.name} is a {FOREIGN[source.suffix]} file, which is never opened because such "
            f"files can run code or unpack without bound; the format is safetensors{hint}"
        )
    # Checked before opening: a pipe would block, and a device has no end.
    if source.exists() and not source.is_file():
        _invalid(f"{source.name} is not a regular file")
    data = source.read_bytes()
    try:
        tensors = dict(_deserialize(data))
        # `_deserialize` has checked this header, but does not return the metadata. `safe_open`
        # would, but it reads the file again, which may have changed.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        _invalid(f"{source.name} is not a safetensors file: {error}")
    del data
    metadata = header.get("__metadata__") or {}
    if KEY not in metadata:
        _invalid(f"{source.name} has no chainrule architecture in its metadata, only tensors")
    try:
        stored = _stored(json.loads(metadata[KEY]))
    except (TypeError, ValueError, RecursionError) as error:
        text = str(error)
        _invalid(text.removeprefix("load: "))
    return stored, _arrays(tensors, stored.architecture)


def _invalid(text: str) -> NoReturn:
    raise ValueError(f"load: {text}") from None


def _arrays(tensors: dict[str, dict[str, Any]], architecture: Architecture) -> dict[str, Array]:
    shapes, dtype = architecture.parameter_shapes, architecture.dtype
    expected = DTYPES[str(dtype)]
    # Before allocation: the file must contain exactly the architecture's parameters.
    if set(tensors) != set(shapes):
        odd = sorted(set(tensors) ^ set(shapes))[0]
        state = "has no" if odd in shapes else "has an unexpected"
        _invalid(f"the file {state} parameter {odd!r}")
    for name, shape in shapes.items():
        got, kind = tuple(tensors[name]["shape"]), tensors[name]["dtype"]
        if got != shape or kind != expected:
            _invalid(f"parameter {name!r} must be {expected} of shape {shape}, got {kind} of {got}")
    return {
        name: np.frombuffer(tensor["data"], dtype.newbyteorder("<")).reshape(shapes[name])
        for name, tensor in tensors.items()
    }


def _stored(document: object) -> Stored:
    if not isinstance(document, dict):
        raise ValueError(f"the architecture must be a JSON object, got {type(document).__name__}")
    version = document.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(
            f"version must be {FORMAT_VERSION}, got {version!r}: "
            f"this version of chainrule reads no other format"
        )
    known = {"version", "input_shape", "seed", "dtype", "layers"}
    _keys("the architecture", document, known, set())
    listed, shape, dtype = document["layers"], document["input_shape"], document["dtype"]
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_LAYERS:
        got = len(listed) if isinstance(listed, list) else type(listed).__name__
        raise ValueError(f"layers must be a list of 1 to {MAX_LAYERS} layers, got {got}")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f'dtype must be "float32" or "float64", got {dtype!r}')
    layers = tuple(_layer(i, item) for i, item in enumerate(listed))
    architecture = Architecture.build(layers, shape, dtype)
    seed = integer("Sequential", "seed", document["seed"], 0, 2**64 - 1)
    count = sum(map(math.prod, architecture.parameter_shapes.values()))
    if count * architecture.dtype.itemsize > 2**63:
        raise ValueError("the architecture has more parameters than any file can hold")
    return Stored(architecture, seed)


def _layer(index: int, item: object) -> Layer:
    if not isinstance(item, dict) or item.get("kind") not in tuple(KINDS):
        got = item.get("kind") if isinstance(item, dict) else item
        raise ValueError(f"layer {index} must be one of {', '.join(KINDS)}, got {got!r}")
    kind = KINDS[item["kind"]]
    arguments = {name: value for name, value in item.items() if name != "kind"}
    names = {f.name for f in fields(kind)}
    optional = {f.name for f in fields(kind) if f.default is not MISSING}
    _keys(f"layer {index}, {kind.__name__},", arguments, names, optional)
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"layer {index}: {error}") from None


def _keys(owner: str, document: dict[str, Any], known: set[str], optional: set[str]) -> None:
    for name in document:
        if name not in known:
            raise ValueError(f"{owner} has an unknown key {name!r}")
    for name in sorted(known - optional):
        if name not in document:
            raise ValueError(f"{owner} lacks the key {name!r}")
