"""Network files: exact, atomic, and an error for any other content."""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import chainrule as cr

LAYERS = (
    cr.Conv2d(2, (3, 2), stride=(2, 1), padding=(1, 0)),
    cr.ReLU(),
    cr.Conv2d(3, 2, padding="same"),
    cr.LeakyReLU(0.2),
    cr.MaxPool2d(2, stride=1),
    cr.Dropout(0.25),
    cr.Flatten(),
    *(cr.Sigmoid(), cr.Tanh(), cr.GELU()),
    cr.Linear(4),
    cr.Softmax(),
)


def network(dtype: str = "float32", seed: int = 3) -> cr.Sequential:
    net = cr.Sequential(*LAYERS, input_shape=(7, 6, 1), seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    net.parameter_vector = rng.normal(size=net.parameter_vector.size).astype(dtype)
    return net


def tiny() -> cr.Sequential:
    return cr.Sequential(cr.Linear(2), cr.ReLU(), input_shape=(3,))


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return header and data of a safetensors file."""
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:end]), data[end:]


def assemble(path: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip_to_the_bit(tmp_path: Path, dtype: str) -> None:
    net, path = network(dtype), tmp_path / "net.safetensors"
    net.save(path)
    for again in (cr.load(path), cr.Sequential.load(str(path))):
        assert repr(again) == repr(net)
        assert (again.layers, again.shapes, again.dtype) == (net.layers, net.shapes, net.dtype)
        assert again.parameter_vector.tobytes() == net.parameter_vector.tobytes()
        x = np.random.default_rng(0).integers(0, 256, (5, 7, 6, 1), np.uint8)
        assert np.array_equal(again.predict(x), net.predict(x))
        assert np.array_equal(again.forward(x, training=True), network(dtype).forward(x, True))
        # The loaded network can be trained. This does not change the file.
        cr.fit(
            again,
            (x, np.zeros(5, int)),
            loss=cr.CrossEntropy(),
            optimizer=cr.SGD(0.1),
            epochs=1,
            progress=False,
        )
    again.save(path)
    assert cr.load(path).parameter_vector.tobytes() == again.parameter_vector.tobytes()


def test_special_values_and_no_parameters(tmp_path: Path) -> None:
    net, path = tiny(), tmp_path / "net.safetensors"
    net.parameters["0.weight"][...] = [[np.nan, np.inf, -0.0], [1e-45, -np.inf, 3e38]]
    net.save(path)
    assert cr.load(path).parameter_vector.tobytes() == net.parameter_vector.tobytes()
    cr.Sequential(cr.Flatten(), input_shape=(2, 2)).save(path)
    assert cr.load(path).parameter_vector.size == 0


def test_other_readers_read_it(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "net.safetensors"
    net.save(path)
    arrays = safetensors.numpy.load_file(path)
    assert list(arrays) == sorted(net.parameters)
    for name, array in net.parameters.items():
        assert np.array_equal(arrays[name], array)
    with safetensors.safe_open(path, "np") as file:
        architecture = json.loads(file.metadata()["chainrule"])
    assert architecture["version"] == 1
    assert architecture["layers"][1] == {"kind": "ReLU"}


def test_modes_follow_the_umask_and_the_old_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for umask in (0o022, 0o027, 0o077):
            os.umask(umask)
            path = tmp_path / f"{umask:o}.safetensors"
            tiny().save(path)
            assert path.stat().st_mode & 0o777 == 0o666 & ~umask
            path.chmod(0o640)
            tiny().save(path)
            assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_symbolic_links_stay(tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to("real.safetensors")
    tiny().save(tmp_path / "link.safetensors")
    assert (tmp_path / "link.safetensors").is_symlink()
    assert (tmp_path / "real.safetensors").is_file()


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.safetensors"
    tiny().save(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        network().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    stray = tmp_path / f".net[1].safetensors.{'0' * 16}.tmp"
    young = tmp_path / f".net[1].safetensors.{'1' * 16}.tmp"
    other = tmp_path / f".net1.safetensors.{'0' * 16}.tmp"
    for file in (stray, young, other):
        file.write_bytes(b"")
    for file in (stray, other):
        os.utime(file, (time.time() - 7200,) * 2)
    tiny().save(tmp_path / "net[1].safetensors")
    assert not stray.exists()
    assert young.exists()
    assert other.exists()


def test_file_and_folder_are_flushed_before_save_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def spy_replace(*paths: Any, **folders: Any) -> None:
        done.append("replace")
        replace(*paths, **folders)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    tiny().save(tmp_path / "net.safetensors")
    assert done == ["file", "replace", "folder"]


def test_the_bytes_are_those_of_the_safetensors_package(tmp_path: Path) -> None:
    net, path = network(), tmp_path / "net.safetensors"
    net.save(path)
    metadata = parts(path)[0]["__metadata__"]
    arrays = {name: np.array(array) for name, array in net.parameters.items()}
    assert safetensors.numpy.save(arrays, metadata) == path.read_bytes()


def test_every_truncation_raises(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    tiny().save(path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"^load: "):
            cr.load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match=r"^load: "):
        cr.load(path)


def test_flipped_bytes_raise_or_change_weights(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    tiny().save(path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    raised = 0
    for position in range(len(data)):
        for value in rng.integers(0, 256, 3):
            path.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
            try:
                net = cr.load(path)
            except ValueError as error:
                assert str(error).startswith("load: ")  # noqa: PT017  # some flips are legal
                raised += 1
            else:
                assert net.output_shape == (2,)
    assert raised > len(data)


def change(**changes: Any) -> Any:
    return lambda architecture: {**architecture, **changes}


def layer(index: int, **changes: Any) -> Any:
    def edit(architecture: dict[str, Any]) -> dict[str, Any]:
        layers = [dict(item) for item in architecture["layers"]]
        layers[index] |= changes
        return {**architecture, "layers": layers}

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: [], "the architecture must be a JSON object, got list"),
        (lambda a: None, "the architecture must be a JSON object, got NoneType"),
        (
            change(version=2),
            "version must be 1, got 2: this version of chainrule reads no other format",
        ),
        (change(version=True), "version must be 1, got True"),
        (change(version="1"), "version must be 1, got '1'"),
        (change(extra=1), "the architecture has an unknown key 'extra'"),
        (lambda a: {k: v for k, v in a.items() if k != "seed"}, "lacks the key 'seed'"),
        (change(seed=-1), "seed must be at least 0"),
        (change(seed=1.5), "seed must be an integer, got 1.5"),
        (change(seed=None), "seed must be an integer, got None"),
        (change(dtype="float16"), 'dtype must be "float32" or "float64", got \'float16\''),
        (change(dtype=["float32"]), 'dtype must be "float32" or'),
        (change(dtype="float64"), "parameter '0.weight' must be F64 of shape .*, got F32"),
        (change(input_shape="3"), "input_shape must be a tuple"),
        (change(input_shape=[4]), r"'0.weight' must be F32 of shape \(2, 4\), got F32 of \(2, 3\)"),
        (change(input_shape=[2**31]), "input_shape must be at most"),
        (change(input_shape=[2**31 - 1]), r"must be F32 of shape \(2, 2147483647\), got"),
        (change(input_shape=[[3]]), "input_shape must contain integers"),
        (change(input_shape=[2**30] * 8), r"layer 0, Linear\(2\): input must be flat"),
        (change(input_shape=[1] * 9), "at most 8 dimensions"),
        (change(layers=[]), "layers must be a list of 1 to 4096 layers, got 0"),
        (change(layers={"kind": "ReLU"}), "layers must be a list of .*, got dict"),
        (change(layers=[{"kind": "ReLU"}] * 4097), "layers must be a list of .*, got 4097"),
        (change(layers=["ReLU"]), "layer 0 must be one of Linear, .*, got 'ReLU'"),
        (change(layers=[{"kind": "Layer"}]), "layer 0 must be one of Linear, .*, got 'Layer'"),
        (change(layers=[{"kind": ["ReLU"]}]), r"layer 0 must be one of Linear, .*, got \['ReLU'\]"),
        (change(layers=[{"kind": "ReLU"}]), "the file has an unexpected parameter '0.bias'"),
        (layer(0, out=3), r"parameter '0.weight' must be F32 of shape \(3, 3\), got"),
        (layer(0, out="2"), "layer 0: Linear: out must be an integer, got '2'"),
        (layer(0, out=2.0), "layer 0: Linear: out must be an integer"),
        (layer(0, __class__="x"), "layer 0, Linear, has an unknown key '__class__'"),
        (layer(0, kind="Dropout"), "layer 0, Dropout, has an unknown key 'out'"),
        (layer(1, kind="Linear"), "layer 1, Linear, lacks the key 'out'"),
        (layer(1, kind="Linear", out=2), "the file has no parameter '1.bias'"),
        (layer(1, kind="LeakyReLU", slope="steep"), "slope must be a number, got 'steep'"),
        (layer(1, kind="LeakyReLU", slope=[1]), "slope must be a number"),
        (layer(1, kind="LeakyReLU", slope=float("nan")), "slope must be finite, got nan"),
        (layer(1, kind="Dropout", rate=1), "rate must be in"),
        (layer(1, kind="MaxPool2d", window=[1, 2, 3]), "window must be an integer or a pair"),
    ],
)
def test_an_architecture_outside_the_schema_raises(tmp_path: Path, edit: Any, message: str) -> None:
    path = tmp_path / "net.safetensors"
    tiny().save(path)
    header, data = parts(path)
    architecture = edit(json.loads(header["__metadata__"]["chainrule"]))
    header["__metadata__"]["chainrule"] = json.dumps(architecture)
    assemble(path, header, data)
    with pytest.raises(ValueError, match=rf"^load: .*net\.safetensors: .*{message}"):
        cr.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 100_000, ""),
        ('{"version": 1' + "0" * 5000 + "}", ""),
    ],
)
def test_metadata_that_is_not_json_raises(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "net.safetensors"
    tiny().save(path)
    header, data = parts(path)
    header["__metadata__"]["chainrule"] = text
    assemble(path, header, data)
    with pytest.raises(ValueError, match=rf"^load: .*net\.safetensors: .*{message}"):
        cr.load(path)


def test_other_safetensors_files_raise(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for metadata in (None, {}, {"format": "pt"}):
        safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path, metadata)
        with pytest.raises(
            ValueError,
            match=r"^load: .*weights\.safetensors has no chainrule architecture in ",
        ):
            cr.load(path)
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(ValueError, match=r"^load: .*weights\.safetensors is not a safetensors"):
        cr.load(path)
    path.write_bytes(b"\x80\x04\x95" + bytes(40))
    with pytest.raises(ValueError, match=r"^load: .*weights\.safetensors is not a safetensors"):
        cr.load(path)
    with pytest.raises(FileNotFoundError):
        cr.load(tmp_path / "absent.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    for odd in (tmp_path / "pipe.safetensors", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match=r"^load: .*: path must be a regular file, got a "):
            cr.load(odd)


@pytest.mark.parametrize("suffix", ["pt", "pth", "pkl", "pickle", "npz", "npy"])
def test_other_formats_raise_by_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net.{suffix}"
    with pytest.raises(ValueError, match=rf"^load: .*net\.{suffix} is a \w+ file, .* safetensors"):
        cr.load(path)
    with pytest.raises(
        ValueError, match=rf"^save: path must not end in \.{suffix}, got .*net\.{suffix}"
    ):
        tiny().save(path)
    if suffix.startswith("pt"):
        with pytest.raises(ValueError, match=r"safetensors\.torch\.save_file\(model\.state_dict"):
            cr.load(path)
