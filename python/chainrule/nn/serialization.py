"""Network files: safetensors, with the architecture as JSON in the metadata.

A file is untrusted data. An invalid file raises one ValueError that starts with ``load:``. It
cannot run code, and cannot make the loader use more memory than twice the file's size and 10 MB.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from io import BufferedReader
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .. import available_memory
from .._files import PathLike, explained_memory_errors, open_regular, replace_file, shown
from .._types import Array
from .._validation import integer
from .architecture import Architecture
from .bounded_json import decode_notes, encode_notes, parse
from .layers import KINDS, Layer
from .user_defined import is_built_in

FORMAT_VERSION = 1
KEY = "chainrule"
MAX_LAYERS = 4096
# Bound of the header, checked before it is parsed. A network of MAX_LAYERS convolutions stays below
# it, and so do its notes.
MAX_HEADER = 2 << 20  # bytes
MAX_MESSAGE = 500  # characters
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


class Tensor(NamedTuple):
    """An entry of the header. The bytes are ``start`` to ``end`` of the data after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Stored:
    """The content of a file, except for the weights."""

    architecture: Architecture
    seed: int
    notes: dict[str, Any] = field(default_factory=dict)


def write(path: PathLike, stored: Stored, arrays: Mapping[str, Array]) -> None:
    """Write a network atomically. See `chainrule._files.replace_file`.

    The file is that of ``safetensors.numpy.save``, to the byte. That function copies all weights
    twice, and if memory is short it ends with an exception outside `Exception`, or aborts. Here the
    weights are written from where they are.

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
        If the path is a folder, a pipe or a device, if the name ends like another format, such as
        ``net.pt``, or if `read` could not read the network.
    TypeError
        If the notes contain a value that JSON lacks.
    MemoryError
        If memory is short. An existing file is then unchanged.
    """
    suffix = os.path.splitext(shown(path))[1]
    if suffix in FOREIGN:
        raise ValueError(
            f"save: path must not end in {suffix}, got {shown(path)}: the format is safetensors"
        )
    layers = len(stored.architecture.layers)
    if layers > MAX_LAYERS:
        raise ValueError(f"save: network must have at most {MAX_LAYERS} layers, got {layers}")
    document = _document(stored)
    text = f"save: {shown(path)}: memory must suffice to write, got too little"
    with explained_memory_errors(text):
        replace_file("save", path, _content(document, arrays))


def _document(stored: Stored) -> str:
    """Return the JSON text of everything but the weights, which `_stored` can read back."""
    architecture = stored.architecture
    own: dict[str, type[Layer]] = {}
    for index, layer in enumerate(architecture.layers):
        if not is_built_in(layer):
            _require_readable(index, layer)
            name = type(layer).__name__
            if own.setdefault(name, type(layer)) is not type(layer):
                raise ValueError(f"save: layers must have one class of the name {name}, got two")
    document = {
        "version": FORMAT_VERSION,
        "input_shape": architecture.shapes[0],
        "seed": stored.seed,
        "dtype": str(architecture.dtype),
        "layers": list(map(_described, architecture.layers)),
    }
    if stored.notes:
        document["metadata"] = encode_notes(stored.notes)
    return json.dumps(document)


def _described(layer: Layer) -> dict[str, Any]:
    arguments = {item.name: getattr(layer, item.name) for item in fields(layer) if item.init}
    return {"kind": type(layer).__name__} | arguments


def _require_readable(index: int, layer: Layer) -> None:
    """Raise ValueError unless `read` makes an equal layer from the fields of a user-defined one."""
    kind = type(layer)
    try:
        text = json.dumps(_described(layer))
        if not text.isascii() or "\\u" in text:
            raise ValueError("names and texts must be ASCII")
        again = _layer(index, parse("fields", text), {**KINDS, **_own_kinds("save", [kind])})
        if vars(again) != vars(layer) or _described(again) != _described(layer):
            raise ValueError(f"the fields give {again!r}, which has other attributes")
    except Exception as error:  # also of the user's own __init__
        raise ValueError(
            f"save: layer {index}, {layer!r}, must be a frozen dataclass whose fields are its "
            f"arguments: numbers, strings, None and tuples of these, got: {error}. Only then can "
            f"load(path, layers=[{kind.__name__}]) read the file"
        ) from None


def _own_kinds(operation: str, classes: object) -> dict[str, type[Layer]]:
    """Return the user-defined classes of layers by their names.

    Raises
    ------
    TypeError, ValueError
        If `classes` are not classes of layers with different names.
    """
    rule = f"{operation}: layers must be a list of classes of layers, such as [MyLayer]"
    if isinstance(classes, type | str | Layer) or not isinstance(classes, Iterable):
        raise TypeError(f"{rule}, got {classes!r}")
    own: dict[str, type[Layer]] = {}
    for kind in classes:
        if not (isinstance(kind, type) and issubclass(kind, Layer)):
            raise TypeError(f"{rule}, got {kind!r}")
        name = kind.__name__
        if KINDS.get(name, kind) is not kind:
            raise ValueError(
                f"{operation}: layers must have other names than those of chainrule, got {name}"
            )
        if own.setdefault(name, kind) is not kind:
            raise ValueError(f"{operation}: layers must have different names, got {name} twice")
    return own


def _content(document: str, arrays: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """Yield the parts of the file: the header's length, the header, and each array by its name."""
    header: dict[str, Any] = {"__metadata__": {KEY: document}}
    end = 0
    for name, array in sorted(arrays.items()):
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": DTYPES[str(array.dtype)],
            "shape": array.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays are aligned
    if len(text) > MAX_HEADER:
        raise ValueError(f"save: header must have at most {MAX_HEADER} bytes, got {len(text)}")
    yield len(text).to_bytes(8, "little") + text
    for _, array in sorted(arrays.items()):
        yield np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data


def read(path: PathLike, layers: object = ()) -> tuple[Stored, dict[str, Array]]:
    """Return the content of a file that `write` wrote.

    Parameters
    ----------
    path : path
    layers : iterable of type[Layer]
        The user-defined classes that the file may name. No other code runs.

    The arrays own their memory. The file is not mapped: if a mapped file is overwritten, its reader
    sees changed data or is killed. Memory beyond the arrays stays below 10 MB, whatever the file
    contains: the header is bounded before it is parsed, and the arrays are allocated after their
    sizes are known to be those of the architecture and of the file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not a network of this library, or names a layer that is neither of this
        library nor in `layers`. The message starts with ``load:`` and names the file.
    TypeError
        If `layers` are not classes of layers.
    MemoryError
        If memory is short.
    """
    kinds = {**KINDS, **_own_kinds("load", layers)}
    name = shown(path)
    kind = FOREIGN.get(os.path.splitext(shown(path))[1])
    if kind is not None:
        hint = (
            "; in PyTorch, safetensors.torch.save_file(model.state_dict(), ...) converts weights"
            if kind == "PyTorch"
            else ""
        )
        _invalid(
            f"{name} is a {kind} file, which is never opened because such files can run code or "
            f"unpack without bound; the format is safetensors{hint}"
        )
    with explained_memory_errors(f"load: {name}: memory must suffice to read, got too little"):
        try:
            with open_regular("load", path) as file:
                tensors, text, nbytes = _header(name, file)
                try:
                    stored = _stored(parse("the architecture", text), kinds)
                except (TypeError, ValueError) as error:
                    _invalid(str(error).removeprefix("load: "))
                _check_tensors(name, tensors, nbytes, stored.architecture)
                starts = {start: parameter for parameter, (_, _, start, _) in tensors.items()}
                order = [starts[start] for start in sorted(starts)]
                del tensors, text, starts  # before the arrays are allocated
                return stored, _arrays(name, file, order, stored.architecture)
        except (IsADirectoryError, ValueError) as error:
            text = str(error).removeprefix("load: ")
            _invalid(text if name in text else f"{name}: {text}")


def _invalid(text: str) -> NoReturn:
    if len(text) > MAX_MESSAGE:  # it can contain parts of the file
        text = text[:MAX_MESSAGE] + " ..."
    raise ValueError(f"load: {text}") from None


def _header(name: str, file: BufferedReader) -> tuple[dict[str, Tensor], str, int]:
    """Return the tensors, the text of the architecture, and the size of the data in bytes."""
    rule = f"{name} is not a safetensors file of a network"
    size = os.fstat(file.fileno()).st_size
    head = file.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or not 2 <= length <= size - 8:
        _invalid(f"{rule}: its header must have the declared size, got {length} in {size} bytes")
    if length > MAX_HEADER:
        _invalid(f"{rule}: its header must have at most {MAX_HEADER} bytes, got {length}")
    encoded = file.read(length)
    # One character beyond 16 bits takes four bytes for each character of its string.
    if not encoded.isascii() or b"\\u" in encoded:
        _invalid(f"{rule}: its header must be ASCII without \\u escapes")
    text = encoded.decode("ascii")
    del encoded
    try:
        header = parse("its header", text)
    except ValueError as error:
        _invalid(f"{rule}: {error}")
    if not isinstance(header, dict):
        _invalid(f"{rule}: its header must be a JSON object, got {type(header).__name__}")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        _invalid(f"{name} has no chainrule architecture in its metadata, only tensors")
    if len(header) > 2 * MAX_LAYERS:
        _invalid(f"{name} must have at most {2 * MAX_LAYERS} tensors, got {len(header)}")
    tensors = {key: _tensor(key, header[key]) for key in list(header)}
    return tensors, metadata[KEY], size - 8 - length


def _tensor(name: str, entry: object) -> Tensor:
    if isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}:
        shape, offsets = entry["shape"], entry["data_offsets"]
        if _is_integers(shape) and _is_integers(offsets) and len(offsets) == 2:
            return Tensor(str(entry["dtype"]), tuple(shape), *offsets)
    _invalid(f"parameter {name!r} must have a dtype, a shape and two offsets, got {entry!r}")


def _is_integers(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _check_tensors(
    name: str, tensors: dict[str, Tensor], nbytes: int, architecture: Architecture
) -> None:
    """Check that the file contains exactly the parameters, one after another."""
    shapes, dtype = architecture.parameter_shapes, architecture.dtype
    if tensors.keys() != shapes.keys():
        odd = sorted(tensors.keys() ^ shapes.keys())[0]
        state = "has no" if odd in shapes else "has an unexpected"
        _invalid(f"the file {state} parameter {odd!r}")
    kind = DTYPES[str(dtype)]
    for parameter, shape in shapes.items():
        got = tensors[parameter]
        if (got.dtype, got.shape) != (kind, shape):
            _invalid(
                f"parameter {parameter!r} must be {kind} of shape {shape}, "
                f"got {got.dtype} of {got.shape}"
            )
    end = 0
    for parameter, got in sorted(tensors.items(), key=lambda item: item[1].start):
        expected = end, end + math.prod(got.shape) * dtype.itemsize
        if (got.start, got.end) != expected:
            _invalid(f"parameter {parameter!r} must be at bytes {expected}, got {got[2:]}")
        end = got.end
    if end != nbytes:
        _invalid(f"{name} must end after {end} bytes of parameters, got {nbytes}")


def _arrays(
    name: str, file: BufferedReader, order: list[str], architecture: Architecture
) -> dict[str, Array]:
    """Read the arrays in their order in the file."""
    shapes, dtype = architecture.parameter_shapes, architecture.dtype
    sizes = {parameter: math.prod(shapes[parameter]) * dtype.itemsize for parameter in order}
    available_memory.require(f"load: {name} needs", sum(sizes.values()))
    arrays = {}
    for parameter, size in sizes.items():
        data = np.empty(size, np.uint8)
        if file.readinto(data.data) != size:
            _invalid(f"{name} must not change while it is read")
        arrays[parameter] = data.view(dtype.newbyteorder("<")).reshape(shapes[parameter])
    return arrays


def _stored(document: object, kinds: Mapping[str, type[Layer]]) -> Stored:
    if not isinstance(document, dict):
        raise ValueError(f"the architecture must be a JSON object, got {type(document).__name__}")
    version = document.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(
            f"version must be {FORMAT_VERSION}, got {version!r}: "
            f"this version of chainrule reads no other format"
        )
    known = {"version", "input_shape", "seed", "dtype", "layers"}
    _keys("the architecture", document, known | {"metadata"}, {"metadata"})
    listed, shape, dtype = document["layers"], document["input_shape"], document["dtype"]
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_LAYERS:
        got = len(listed) if isinstance(listed, list) else type(listed).__name__
        raise ValueError(f"layers must be a list of 1 to {MAX_LAYERS} layers, got {got}")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f'dtype must be "float32" or "float64", got {dtype!r}')
    layers = tuple(_layer(i, item, kinds) for i, item in enumerate(listed))
    architecture = Architecture.build(layers, shape, dtype)
    seed = integer("Sequential", "seed", document["seed"], 0, 2**64 - 1)
    count = sum(map(math.prod, architecture.parameter_shapes.values()))
    if count * architecture.dtype.itemsize > 2**63:
        raise ValueError("the architecture has more parameters than any file can hold")
    # The notes are parsed last, when the parsed layers are gone: the peak of memory is bounded.
    text = document.get("metadata")
    document.clear()
    del listed
    return Stored(architecture, seed, {} if text is None else decode_notes(text))


def _layer(index: int, item: object, kinds: Mapping[str, type[Layer]]) -> Layer:
    if not isinstance(item, dict) or item.get("kind") not in tuple(kinds):
        got = item.get("kind") if isinstance(item, dict) else item
        hint = ""
        if isinstance(got, str) and got.isidentifier() and got != "Layer":
            hint = f": a class of your own must be given, load(path, layers=[{got}])"
        raise ValueError(f"layer {index} must be one of {', '.join(kinds)}, got {got!r}{hint}")
    kind = kinds[item["kind"]]
    own = kind not in KINDS.values()
    arguments = {
        name: _tuples(value) if own else value for name, value in item.items() if name != "kind"
    }
    names = {f.name for f in fields(kind) if f.init}
    optional = {
        f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING
    }
    _keys(f"layer {index}, {kind.__name__},", arguments, names, optional)
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"layer {index}: {error}") from None


def _tuples(value: object) -> object:
    """Return the value with tuples for lists, as the fields of a frozen dataclass have."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _keys(owner: str, document: dict[str, Any], known: set[str], optional: set[str]) -> None:
    for name in document:
        if name not in known:
            raise ValueError(f"{owner} has an unknown key {name!r}")
    for name in sorted(known - optional):
        if name not in document:
            raise ValueError(f"{owner} lacks the key {name!r}")
