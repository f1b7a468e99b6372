"""Crafted files cost no more memory than twice their size and 10 MB, and little time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import chainrule as cr
from chainrule.nn.serialization import MAX_HEADER, MAX_LAYERS

# Prints the peak memory of a load beyond what the process holds, in bytes.
LOAD = """
import sys, chainrule as cr, chainrule.nn.serialization
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = peak()
try:
    cr.load(sys.argv[1])
except ValueError as error:
    assert str(error).startswith("load: ") and len(str(error)) < 700, error
print(peak() - before)
"""
EMPTY = {"version": 1, "input_shape": [1], "seed": 0, "dtype": "float32"}


def metadata(text: str) -> bytes:
    return json.dumps({"__metadata__": {"chainrule": text}}).encode()


def joined(items: Iterable[str], ends: str = "[]") -> str:
    return ends[0] + ",".join(items) + ends[1]


def tensors(count: int) -> str:
    entry = '"%x":{"dtype":"F32","shape":[1,2],"data_offsets":[%d,%d]}'
    return ",".join(entry % (i, i + 1000, i + 2000) for i in range(count))


def both(text: str) -> bytes:
    known = f'{{"__metadata__":{{"chainrule":{json.dumps(text)}}},{tensors(2 * MAX_LAYERS)}}}'
    return known.encode()


def notes(text: str, layers: list[Any] | None = None) -> bytes:
    document = {
        **EMPTY,
        "layers": layers or [{"kind": "ReLU"}],
        "metadata": text.encode("utf-7").decode(),
    }
    return metadata(json.dumps(document))


HOSTILE = {
    "lists": metadata(joined(["[]"] * 44_000)),
    "more lists": metadata(joined(["[]"] * 600_000)),
    "objects": metadata(joined(["{}"] * 22_000)),
    "objects with one key": metadata(joined('{"a":"%x"}' % (i + 99_999) for i in range(22_000))),
    "different keys": metadata(joined((f'"{i:x}":{i}' for i in range(80_000)), "{}")),
    "strings": metadata(joined(f'"{i:x}"' for i in range(89_000))),
    "floats": metadata(joined(f"{i}.5" for i in range(89_000))),
    "keys of metadata": joined(
        ['"__metadata__":' + joined((f'"{i:x}":""' for i in range(100_000)), "{}")], "{}"
    ).encode(),
    "tensors": joined([tensors(30_000)], "{}").encode(),
    "tensors and objects": both(joined('{"a":"%x"}' % (i + 99_999) for i in range(22_000))),
    "a long key": b'{"' + b"a" * 2_000_000 + b'":0}',
    "a long key of the architecture": metadata('{"' + "a" * 1_900_000 + '":0}'),
    "escapes": b'{"' + b"\\n" * 1_000_000 + b'":0}',
    "a string without end": b'{"' + b'\\"' * 1_000_000,
    "characters of 4 bytes": b'{"\\ud83d\\ude00' + b"a" * 1_900_000 + b'":0}',
    "deep": b"[" * 2_000_000,
    "deep architecture": metadata("[" * 1_900_000),
    "digits": b'{"a":' + b"9" * 2_000_000 + b"}",
    "digits of a float": b'{"a":0.' + b"9" * 2_000_000 + b"}",
    "digits of an argument": metadata(
        json.dumps({**EMPTY, "layers": [{"kind": "Linear"}]})[:-3] + f',"out":{"9" * 10**6}}}]}}'
    ),
    "axes": (
        b'{"__metadata__":{"chainrule":"{}"},"a":{"dtype":"F32","shape":['
        + b"1," * 80_000
        + b'1],"data_offsets":[0,4]}}'
    ),
    "a million axes": b'{"a":{"dtype":"F32","shape":[' + b"1," * 900_000 + b"1]}}",
    "spaces": b"{" + b" " * 2_000_000 + b"}",
    "layers": metadata(json.dumps({**EMPTY, "layers": [{"kind": "Softmax"}] * MAX_LAYERS})),
    "more layers": metadata(json.dumps({**EMPTY, "layers": [{"kind": "Softmax"}] * 10_000})),
    "notes": notes(joined(["[]"] * 80_000)),
    "wide notes": notes(json.dumps("\U0001f989" * 45_000, ensure_ascii=False)),
    "many wide notes": notes(joined(['"\U0001f989"'] * 15_000)),
    "notes and layers": notes(joined(["{}"] * 29_000), [{"kind": "Softmax"}] * MAX_LAYERS),
    "longer notes": notes(" " * 1_900_000),
    "90 MB": b"{" + b" " * 90_000_000 + b"}",
}


def assemble(path: Path, header: bytes, data: bytes = b"") -> None:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def peak_of_load(path: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(path)],
        # A guard against a load that never ends. One takes less than 0.2 s.
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("kind", HOSTILE)
def test_memory_of_a_hostile_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "net.safetensors"
    assemble(path, HOSTILE[kind])
    assert peak_of_load(path) <= 2 * path.stat().st_size + 10_000_000


@pytest.mark.parametrize(
    "layers",
    [
        [cr.Linear(1)] * MAX_LAYERS,
        [cr.Conv2d(1, (1, 2), padding=(1, 1)), cr.MaxPool2d((2, 1), (1, 1))] * (MAX_LAYERS // 2),
    ],
)
def test_the_largest_number_of_layers(tmp_path: Path, layers: list[cr.Layer]) -> None:
    shape = (1,) if isinstance(layers[0], cr.Linear) else (9, 9, 1)
    path = tmp_path / "net.safetensors"
    net = cr.Sequential(*layers, input_shape=shape)
    net.save(path)
    assert cr.load(path).layers == net.layers
    assert peak_of_load(path) <= 2 * path.stat().st_size + 10_000_000


def test_bounds_admit_the_largest_architecture(tmp_path: Path) -> None:
    # Convolutions with a weight each, and the longest numbers that an argument can have. Their
    # parameters fill no memory: the file is refused for its missing data, not for its header.
    largest = 2**31 - 1
    layer = {
        "kind": "Conv2d",
        "out_channels": largest,
        "kernel_size": [largest - 1, largest],
        "stride": [largest, largest - 1],
        "padding": [largest, largest - 1],
    }
    offsets = [2**63 - 2, 2**63 - 1]
    header: dict[str, Any] = {
        "__metadata__": {"chainrule": json.dumps({**EMPTY, "layers": [layer] * MAX_LAYERS})}
    }
    for i in range(MAX_LAYERS):
        for name, shape in (("weight", [largest] * 4), ("bias", [largest])):
            header[f"{i}.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    assert len(text) <= MAX_HEADER
    path = tmp_path / "net.safetensors"
    assemble(path, text)
    with pytest.raises(ValueError, match=r"^load: .*: Sequential: layer 0, Conv2d"):
        cr.load(path)


def test_save_refuses_more_layers_than_load(tmp_path: Path) -> None:
    net = cr.Sequential(*[cr.ReLU()] * (MAX_LAYERS + 1), input_shape=(1,))
    with pytest.raises(
        ValueError, match=rf"^save: network must have at most {MAX_LAYERS} layers, got 4097$"
    ):
        net.save(tmp_path / "net.safetensors")
    assert os.listdir(tmp_path) == []


LINEAR = json.dumps({**EMPTY, "layers": [{"kind": "Linear", "out": 1}]})
WEIGHT = {"dtype": "F32", "shape": [1, 1], "data_offsets": [4, 8]}
BIAS = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def network(text: str = LINEAR, **entries: Any) -> bytes:
    whole = {"__metadata__": {"chainrule": text}, "0.weight": WEIGHT, "0.bias": BIAS}
    return json.dumps({**whole, **entries}).encode()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[]", "its header must be a JSON object, got list"),
        (b'"a"', "its header must be a JSON object, got str"),
        (b'{"__metadata__":{"chainrule":"{}"},"__metadata__":{}}', "must be unique, got one twice"),
        (b'{"a\x00":0}', "Invalid control character"),
        ('{"ä":0}'.encode(), r"its header must be ASCII without \\u escapes"),
        (b'{"\\u0041":0}', r"its header must be ASCII without \\u escapes"),
        (b'{"__metadata__":{"chainrule":1}}', "has no chainrule architecture"),
        (b'{"__metadata__":["chainrule"]}', "has no chainrule architecture"),
        (network('{"version":1,"version":1}'), "must be unique, got one twice"),
        (network('{"version":1e400}'), "version must be 1, got inf"),
        (network('{"version":NaN}'), "version must be 1, got nan"),
        (network('{"version":-Infinity}'), "version must be 1, got -inf"),
        (network(LINEAR.replace('"out": 1', '"out": 1e400')), "out must be an integer, got inf"),
        (network(LINEAR.replace('"out": 1', '"out": 1e0')), "out must be an integer, got 1.0"),
        (
            network(LINEAR.replace('"out": 1', f'"out": {10**40}')),
            "a number must have at most 40 characters, got 41",
        ),
        (network(**{"0.bias": 1}), "parameter '0.bias' must have a dtype, a shape and two offsets"),
        (network(**{"0.bias": {**BIAS, "x": 1}}), "must have a dtype, a shape and two offsets"),
        (network(**{"0.bias": {**BIAS, "shape": [1.0]}}), "must have a dtype, a shape and two"),
        (network(**{"0.bias": {**BIAS, "shape": [True]}}), "must have a dtype, a shape and two"),
        (network(**{"0.bias": {**BIAS, "shape": [2]}}), r"F32 of shape \(1,\), got F32 of \(2,\)"),
        (network(**{"0.bias": {**BIAS, "dtype": "F64"}}), r"got F64 of \(1,\)"),
        (network(**{"0.bias": {**BIAS, "data_offsets": [0]}}), "must have a dtype, a shape and"),
        (network(**{"0.bias": {**BIAS, "data_offsets": [4, 8]}}), r"must be at bytes \(.*, got"),
        (network(**{"0.bias": {**BIAS, "data_offsets": [8, 12]}}), r"at bytes \(0, 4\), got \(4,"),
        (network(**{"0.bias": {**BIAS, "data_offsets": [-4, 0]}}), r"\(0, 4\), got \(-4, 0\)"),
        (network(**{"0.bias": {**BIAS, "data_offsets": [0, 0]}}), r"\(0, 4\), got \(0, 0\)"),
        (network(**{"x" * 9000: BIAS}), r"unexpected parameter 'x{200,470} \.\.\.$"),
        (network(), ""),
    ],
)
def test_malformed_headers(tmp_path: Path, header: bytes, message: str) -> None:
    path = tmp_path / "net.safetensors"
    assemble(path, header, bytes(8))
    if message:
        with pytest.raises(ValueError, match=rf"^load: .*{message}"):
            cr.load(path)
    else:
        assert cr.load(path).parameter_vector.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("size", [0, 4, 7, 12])
def test_data_of_another_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "net.safetensors"
    assemble(path, network(), bytes(size))
    with pytest.raises(ValueError, match=rf"must end after 8 bytes of parameters, got {size}$"):
        cr.load(path)


def test_recursion_limit_of_the_caller_is_irrelevant(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    assemble(path, metadata("[" * 900_000))
    code = "import sys, chainrule as cr; sys.setrecursionlimit(10**7); cr.load(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"ValueError: load: {path}: the architecture must have at most" in done.stderr
