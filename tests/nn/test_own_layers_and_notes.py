"""Network files with layers of the user's own and with notes, and `predict_class`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

import chainrule as cr
from chainrule.nn.bounded_json import MAX_NOTES


@dataclass(frozen=True, repr=False)
class Scale(cr.Layer):
    factor: float
    shape: tuple[int, ...] = ()
    name: str | None = None
    extra: tuple[float, ...] = field(default_factory=tuple)

    def forward(self, context: Any) -> None:
        np.multiply(context.x, self.factor, out=context.y)

    def backward(self, context: Any) -> None:
        np.multiply(context.dy, self.factor, out=context.dx)


@dataclass(frozen=True, repr=False)
class Wide(cr.Linear):
    """A dense layer of which a subclass adds an argument."""

    gain: float = 1.0


class Plain(cr.Layer):
    """A layer without arguments needs no decorator."""

    def forward(self, context: Any) -> None:
        context.y[...] = context.x


class Loses(cr.Layer):
    """Its argument is no field."""

    def __init__(self, factor: float = 2.0) -> None:
        self.__dict__["factor"] = factor

    def forward(self, context: Any) -> None:
        np.multiply(context.x, 2, out=context.y)


class Requires(Plain):
    def __init__(self, factor: float) -> None:
        pass


@dataclass(frozen=True, repr=False)
class Holds(Plain):
    value: Any


def save_and_load(path: Path, *layers: cr.Layer, own: Any = ()) -> cr.Sequential:
    cr.Sequential(*layers, input_shape=(3,)).save(path)
    return cr.load(path, layers=own)


def test_layers_of_ones_own_are_read_back(tmp_path: Path) -> None:
    layers = (
        Loses(),
        Holds({"a": 1}),
        cr.Linear(2),
        Scale(0.1, (2, 3), "x", (1e-300, 2.0)),
        Plain(),
        Wide(4, 0.25),
        Scale(1),
    )
    path = tmp_path / "net.safetensors"
    net = cr.Sequential(*layers, input_shape=(3,))
    net.save(path)
    again = cr.load(path, layers=iter((Scale, Plain, Wide, Loses, Holds)))
    assert again.layers == layers
    x = np.eye(3, dtype=np.float32)
    assert np.array_equal(again.predict(x), net.predict(x))
    assert again.layers[3].shape == (2, 3)  # type: ignore[attr-defined]


def test_a_class_that_is_not_given_is_named(tmp_path: Path) -> None:
    rule = r"layer 0 must be one of Linear, .*, got 'Scale': a class of your own must be given, "
    with pytest.raises(ValueError, match=rf"^load: .*{rule}load\(path, layers=\[Scale\]\)$"):
        save_and_load(tmp_path / "net.safetensors", Scale(1.0))
    # The fields of the given class are those of the file.
    own = dataclass(frozen=True)(type("Scale", (Plain,), {"__annotations__": {"out": int}}))
    with pytest.raises(ValueError, match=r"^load: .*layer 0, Scale, has an unknown key 'factor'$"):
        cr.load(tmp_path / "net.safetensors", layers=[own])


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Loses(3.0), "the fields give Loses(), which has other attributes"),
        (Requires(1.0), "layer 1: Requires.__init__() missing 1 required positional argument"),
        (Holds([1, 2]), "the fields give Holds((1, 2)), which has other attributes"),
        (Holds(np.float32(1)), "Object of type float32 is not JSON serializable"),
        (Holds(float("nan")), "the fields give Holds(nan)"),
        (Holds("é"), "names and texts must be ASCII"),
        (Holds(10**50), "a number must have at most 40 characters, got 51"),
    ],
)
def test_save_refuses_what_load_could_not_read(
    layer: cr.Layer, reason: str, tmp_path: Path
) -> None:
    net = cr.Sequential(cr.Linear(2), layer, input_shape=(3,))
    with pytest.raises(ValueError, match=r"^save: layer 1, ") as error:
        net.save(tmp_path / "net.safetensors")
    text = str(error.value)
    assert f"got: {reason}" in text
    assert text.endswith(f"Only then can load(path, layers=[{type(layer).__name__}]) read the file")
    assert os.listdir(tmp_path) == []


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    other = type("Plain", (cr.Layer,), {})
    path = tmp_path / "net.safetensors"
    with pytest.raises(
        ValueError, match=r"^save: layers must have one class of the name Plain, got"
    ):
        save_and_load(path, Plain(), other())
    with pytest.raises(ValueError, match=r"^load: layers must have different names, got Plain tw"):
        cr.load(path, layers=[Plain, other])
    named = type("Linear", (Plain,), {})
    with pytest.raises(ValueError, match=r"^load: layers must have other names than those of chai"):
        cr.load(path, layers=[named])
    with pytest.raises(ValueError, match=r"got: save: layers must have other names than those of"):
        save_and_load(path, named())


@pytest.mark.parametrize("layers", [Scale, "Scale", 3, None, [3], ["Scale"], [Scale(1.0)], [int]])
def test_classes_must_be_classes_of_layers(layers: Any, tmp_path: Path) -> None:
    rule = r"^load: layers must be a list of classes of layers, such as \[MyLayer\], got "
    with pytest.raises(TypeError, match=rule):
        cr.load(tmp_path / "absent", layers=layers)


# Notes

NOTES: dict[str, Any] = {
    "classes": ["cat", "dög", "鳥", "🦉", "", 'a "quoted" \\ % name\n'],
    "numbers": [1, -(2**63), 0.1, 5e-324, 1.7976931348623157e308, True, None],
    "nested": {"a": {"b": [[]], "c": {}}},
}


def test_notes_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    net = cr.Sequential(cr.Linear(2), input_shape=(3,))
    net.save(path)
    without = path.read_bytes()
    assert cr.load(path).metadata == {}
    net.metadata.update(NOTES)
    net.save(path)
    again = cr.load(path)
    assert again.metadata == NOTES
    assert np.array_equal(again.parameter_vector, net.parameter_vector)
    with safetensors.safe_open(path, "np") as file:
        document = json.loads(file.metadata()["chainrule"])
    assert json.loads(document["metadata"].encode().decode("utf-7")) == NOTES
    again.metadata = {}
    again.save(path)
    assert path.read_bytes() == without


@pytest.mark.parametrize(
    ("notes", "error", "message"),
    [
        (3, TypeError, "metadata must be a dict, got int"),
        ({1: "a"}, TypeError, "keys of metadata must be of type str, got 1"),
        ({"a": {2: 1}}, TypeError, "keys of metadata['a'] must be of type str, got 2"),
        ({"a": [1, (2,)]}, TypeError, "metadata['a'][1] must be None, a bool, a number, a str, "
         "a list or a dict, got tuple: use list(...)"),
        ({"a": np.arange(3)}, TypeError, "got ndarray: use .tolist()"),
        ({"a": np.int64(3)}, TypeError, "got int64: use .tolist()"),
        ({"a": Path("x")}, TypeError, "got PosixPath"),
        ({"a": float("inf")}, ValueError, "metadata['a'] must be finite, got inf"),
        ({"a": 10**40}, ValueError, "a number must have at most 40 characters, got 41"),
        ({"a": "\ud800"}, ValueError, "metadata must contain valid characters, got a surrogate"),
        ({"a": "x" * MAX_NOTES}, ValueError, f"at most {MAX_NOTES} bytes of text, got"),
        ({"a": [[[[[[[[]]]]]]]]}, ValueError, "8 levels, got more"),
        ({str(i): 0 for i in range(9000)}, ValueError, "8208 different keys"),
    ],
)  # fmt: skip
def test_notes_that_load_could_not_read(
    notes: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    net = cr.Sequential(cr.Linear(2), input_shape=(3,))
    net.metadata = notes
    with pytest.raises(error) as raised:
        net.save(tmp_path / "net.safetensors")
    assert str(raised.value).startswith("save: ")
    assert message in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_a_circle_of_notes_is_refused(tmp_path: Path) -> None:
    net = cr.Sequential(cr.Linear(2), input_shape=(3,))
    net.metadata["a"] = net.metadata
    with pytest.raises(ValueError, match="metadata must have at most 8 levels"):
        net.save(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (3, "metadata must be a str, got int"),
        ("[]", "metadata must be a JSON object, got list"),
        ("{", "Expecting property name"),
        ("+AF\\", "metadata must be UTF-7"),
        ('{"a":1,"a":2}', "must be unique"),
        ("[" * 100, "8 levels"),
        (" " * (MAX_NOTES + 1), f"at most {MAX_NOTES} bytes of text"),
    ],
)
def test_invalid_notes_of_a_file(text: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    document = {"version": 1, "input_shape": [3], "seed": 0, "dtype": "float32"}
    document |= {"layers": [{"kind": "ReLU"}], "metadata": text}
    header = json.dumps({"__metadata__": {"chainrule": json.dumps(document)}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=rf"^load: .*{message}"):
        cr.load(path)


# predict_class


def test_classes_of_several_outputs() -> None:
    net = cr.Sequential(cr.Linear(3), input_shape=(3,))
    net.parameters["0.weight"][...] = np.eye(3)
    x = np.array([[0, 2, 1], [5, 5, 0], [-1, -2, -0.5], [np.inf, 0, 0]], np.float32)
    found = net.predict_class(x[:3], batch_size=2)
    assert found.tolist() == [1, 0, 2]
    assert found.dtype == np.int64
    assert net.predict_class(x[:0]).shape == (0,)
    net.parameters["0.bias"][1] = np.nan
    with pytest.raises(
        ValueError, match=r"^predict_class: outputs must not be NaN, got NaN for ins"
    ):
        net.predict_class(x)


def test_one_output_is_a_logit() -> None:
    net = cr.Sequential(cr.Linear(1), input_shape=(1,), dtype="float64")
    net.parameters["0.weight"][...] = 1.0
    x = np.array([[-1.0], [0.0], [5e-324], [3.0]])
    assert net.predict_class(x).tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"^predict_class: a network with one output must not end"):
        cr.Sequential(cr.Linear(1), cr.Softmax(), input_shape=(1,), dtype="float64").predict_class(
            x
        )


def test_classes_at_each_position() -> None:
    net = cr.Sequential(cr.Conv2d(3, 1), input_shape=(2, 4, 1))
    x = np.random.default_rng(0).normal(size=(5, 2, 4, 1)).astype(np.float32)
    assert np.array_equal(net.predict_class(x), net.predict(x).argmax(-1))
