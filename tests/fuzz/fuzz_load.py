"""Fuzz `chainrule.load`: safetensors files with an architecture in the metadata."""

from __future__ import annotations

import json
import random
import struct
import sys
from dataclasses import dataclass
from typing import Any

from fuzz_harness import (
    MEBIBYTE,
    Finding,
    InputFile,
    Target,
    expect_documented,
    instrumented,
    main,
    mutate_bytes,
    mutate_json,
)

with instrumented("chainrule.nn", "chainrule._validation", "chainrule._files"):
    import chainrule as cr
    from chainrule.nn import serialization

FILE = InputFile("network.safetensors")


@dataclass(frozen=True, repr=False)
class Scale(cr.Layer):
    """A layer that a file can name because its class is given."""

    factor: float = 1.0
    axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.factor, float | int):
            raise TypeError("Scale: factor must be a number")


def check(data: bytes) -> None:
    """Load the file. A network that results has the parameters that its architecture names."""
    FILE.write(data)
    try:
        network = cr.load(FILE.path, layers=[Scale])
    except Exception as error:
        expect_documented(error, [FILE.path.name])
        return
    if not isinstance(network.metadata, dict):
        raise Finding(f"the notes are {network.metadata!r}")
    size = sum(array.size for array in network.parameters.values())
    if network.parameter_vector.size != size:
        raise Finding(f"the vector has {network.parameter_vector.size} parameters, not {size}")


def split(data: bytes) -> tuple[bytes, bytes]:
    """Return the text of the header and the data behind it."""
    length = min(int.from_bytes(data[:8], "little"), len(data) - 8)
    return data[8 : 8 + length], data[8 + length :]


def assemble(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def mutate(data: bytes, source: random.Random) -> bytes:
    """Change the header, the architecture, or the data. The length of the header stays right."""
    header, rest = split(data)
    kind = source.randrange(6)
    if kind == 0:
        return assemble(mutate_bytes(header, source), rest)
    if kind == 1:
        return assemble(header, mutate_bytes(rest, source))
    tree = json.loads(header)
    if kind == 2:
        tree = mutate_json(tree, source)
    else:
        metadata: dict[str, Any] = tree["__metadata__"]
        text = metadata[serialization.KEY]
        if kind == 3:
            text = mutate_bytes(text.encode(), source).decode(errors="replace")
        else:
            text = json.dumps(mutate_json(json.loads(text), source))
        metadata[serialization.KEY] = text
    if source.random() < 0.2:
        rest = mutate_bytes(rest, source)
    return assemble(json.dumps(tree).encode(), rest)


def _file(architecture: object, tensors: dict[str, Any] | None = None, size: int = 0) -> bytes:
    metadata = {"__metadata__": {serialization.KEY: json.dumps(architecture)}}
    return assemble(json.dumps(metadata | (tensors or {})).encode(), bytes(size))


def seeds() -> dict[str, bytes]:
    """Return one file per layer, one with all layers, and files of the kinds that were refused."""
    found: dict[str, bytes] = {}
    every = (
        cr.Conv2d(2, (3, 2), stride=(2, 1), padding=(1, 0)),
        cr.ReLU(),
        cr.Conv2d(2, 2, padding="same"),
        cr.LeakyReLU(0.2),
        cr.MaxPool2d(2, stride=1),
        cr.Dropout(0.25),
        cr.Flatten(),
        cr.Linear(3),
        cr.Softmax(),
    )
    networks = {
        "every": cr.Sequential(*every, input_shape=(7, 6, 1)),
        "linear": cr.Sequential(cr.Linear(2), input_shape=(3,)),
        "double": cr.Sequential(cr.Linear(2), input_shape=(3,), dtype="float64"),
        "flatten": cr.Sequential(cr.Flatten(), input_shape=(2, 2)),
    }
    networks["own"] = cr.Sequential(Scale(2.0, (1, 2)), input_shape=(2,))
    networks["notes"] = cr.Sequential(cr.ReLU(), input_shape=(2,))
    networks["notes"].metadata = {"classes": ["a", "é", "\n"], "n": [1, 0.5, None, {"b": True}]}
    for name, network in networks.items():
        network.save(FILE.path.with_name("seed.safetensors"))
        found[name] = FILE.path.with_name("seed.safetensors").read_bytes()
    plain = {"version": 1, "input_shape": [3], "seed": 0, "dtype": "float32"}
    found["nested"] = _file("[" * 200)
    found["empty-lists"] = _file([[]] * 50)
    found["no-metadata"] = assemble(b"{}", b"")
    found["many-tensors"] = assemble(
        json.dumps(
            {f"{i:x}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(40)}
        ).encode(),
        b"",
    )
    found["huge-layer"] = _file(plain | {"layers": [{"kind": "Linear", "out": 2**31 - 1}]})
    found["many-layers"] = _file(plain | {"layers": [{"kind": "ReLU"}] * 40})
    found["huge-shape"] = _file(plain | {"input_shape": [2**40] * 3, "layers": [{"kind": "ReLU"}]})
    return found


TARGET = Target(
    name="load",
    check=check,
    mutate=mutate,
    seeds=seeds,
    memory=lambda data: 2 * len(data) + 10 * MEBIBYTE,
    longest=1 << 12,
)

if __name__ == "__main__":
    sys.exit(main(TARGET))
