"""chainrule.cuda.Array: owns device memory and shares it with other libraries without a copy."""

from __future__ import annotations

import gc
import re
import threading
from typing import Any

import numpy as np
import pytest

from assertions import same_bits
from cases import seeded
from chainrule import Program, cuda, ops
from op_contract import raises

if cuda.why_off():
    pytest.skip(f"no GPU to use: {cuda.why_off()}", allow_module_level=True)

TYPES = ["float32", "float64", "uint8", "uint16", "int64", "uint64"]
SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 4), (2, 3, 4, 5)]


class Dlpack:
    """An array only through DLPack, of version 1 or older."""

    def __init__(self, array: cuda.Array, versioned: bool = True) -> None:
        self.array, self.versioned = array, versioned
        self.streams: list[Any] = []

    def __dlpack__(self, stream: Any = None, **options: Any) -> Any:
        if options and not self.versioned:
            raise TypeError("unexpected keyword arguments")
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Interface:
    """An array only through the CUDA array interface."""

    def __init__(self, array: cuda.Array, **changes: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__ | changes


def random_array(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    return seeded(shape).integers(0, 200, shape).astype(dtype)


def address(array: cuda.Array) -> int:
    return array.__cuda_array_interface__["data"][0]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip(shape: tuple[int, ...], dtype: str) -> None:
    a = random_array(shape, dtype)
    on_gpu = cuda.array(a)
    assert (on_gpu.shape, on_gpu.dtype, on_gpu.ndim) == (a.shape, a.dtype, a.ndim)
    assert (on_gpu.size, on_gpu.nbytes) == (a.size, a.nbytes)
    assert same_bits(on_gpu.numpy(), a)
    assert same_bits(on_gpu.copy().numpy(), a)
    assert same_bits(cuda.zeros(shape, dtype).numpy(), np.zeros(shape, dtype))
    assert repr(on_gpu) == f"cuda.Array(shape={a.shape}, dtype={dtype})"
    if a.ndim:
        assert len(on_gpu) == len(a)


def test_strided_array_is_copied_contiguous() -> None:
    a = random_array((6, 8))[::2, ::-1]
    assert same_bits(cuda.array(a).numpy(), np.ascontiguousarray(a))


def test_fill_copies_the_elements() -> None:
    a, b = random_array((3, 4)), random_array((3, 4)) + 1
    array = cuda.array(a)
    array.fill(b)
    assert same_bits(array.numpy(), b)
    array.fill(cuda.array(a))
    assert same_bits(array.numpy(), a)
    text = "cuda.Array.fill: source must be float32 of shape (3, 4), got "
    with raises(ValueError, text + "float64 of shape (3, 4)"):
        array.fill(b.astype(np.float64))
    with raises(ValueError, text + "float32 of shape (4, 3)"):
        array.fill(cuda.empty((4, 3)))
    with raises(
        TypeError, "cuda.Array.fill: source must be a NumPy array or a cuda.Array, got list"
    ):
        array.fill([1.0])


@pytest.mark.parametrize(("to", "start"), [(0, 4), (4, 0), (0, 0)])
def test_fill_from_an_overlapping_part(to: int, start: int) -> None:
    """A CUDA copy between overlapping ranges would be undefined."""
    whole = cuda.array(np.arange(1001, dtype=np.float32))
    want = whole.numpy()[start // 4 :][:1000]
    into = whole.part(to, (1000,), np.float32)
    into.fill(whole.part(start, (1000,), np.float32))
    assert same_bits(into.numpy(), want)


def test_begin_step_requires_arrays_on_the_gpu() -> None:
    step = cuda.StepBuffers(**dict.fromkeys(cuda.StepBuffers._fields, np.zeros(1, np.int64)))
    text = "begin_step: order must be a cuda.Array of int64 with at least 1 elements, got int64"
    with raises(TypeError, text):
        cuda.begin_step(step)


def test_parts_share_memory() -> None:
    whole = cuda.array(np.arange(32, dtype=np.float32))
    part = whole.part(16, (2, 3), np.float32)
    assert part.numpy().tolist() == [[4, 5, 6], [7, 8, 9]]
    ops.relu(part, out=part)
    part.fill(np.full((2, 3), -1, np.float32))
    assert whole.numpy()[3:11].tolist() == [3, -1, -1, -1, -1, -1, -1, 10]
    for offset, shape in [(2, (1,)), (-4, (1,)), (124, (2,)), (0, (33,))]:
        with pytest.raises(
            ValueError, match=r"cuda\.Array\.part: .* must end within 128 bytes, got \d+ bytes at"
        ):
            whole.part(offset, shape, np.float32)


@pytest.mark.parametrize("lead", range(5))
@pytest.mark.parametrize("count", [1, 5, 2050])
def test_operations_on_a_part_leave_the_elements_around_it(lead: int, count: int) -> None:
    """Elementwise kernels have vectors of four, the first of which can begin before the part."""
    size = count + 9
    arrays = [cuda.array(np.full(size, value, np.float32)) for value in (3, -1, 5)]
    x, y, parameters = (array.part(4 * lead, (count,), np.float32) for array in arrays)
    ops.relu(x, out=y)
    ops.sgd(parameters, x, learning_rate=1.0)
    inside = (np.arange(size) >= lead) & (np.arange(size) < lead + count)
    np.testing.assert_array_equal(arrays[1].numpy(), np.where(inside, 3, -1))
    np.testing.assert_array_equal(arrays[2].numpy(), np.where(inside, 2, 5))


def test_empty_part_overlaps_nothing() -> None:
    whole = cuda.array(random_array((4, 3)))
    into = whole.part(24, (0, 3), np.float32)
    assert ops.gather(whole, cuda.empty((0,), np.int64), out=into) is into


def test_no_arithmetic_and_no_implicit_copies() -> None:
    array = cuda.array(random_array((3,)))
    for attribute in ("__add__", "__getitem__", "__iter__", "__float__"):
        assert not hasattr(array, attribute)
    with raises(
        TypeError,
        "cuda.Array: an array on a GPU must be copied to become a NumPy array; use its numpy()",
    ):
        np.asarray(array)


def test_unsupported_dtypes() -> None:
    for dtype in ("float16", "int32", "bool", "complex64", ">f4"):
        with pytest.raises(TypeError, match=r"cuda\.Array: dtype must be float32, float64, uint8"):
            cuda.array(np.zeros(3, dtype))


def test_last_reference_frees_the_memory() -> None:
    gc.collect()
    cuda.synchronize()
    free, total = cuda.memory()
    array = cuda.zeros(2**24, np.uint8)
    part = array.part(0, (4,), np.uint8)
    assert cuda.memory()[0] <= free - 2**24
    del array
    assert cuda.memory()[0] <= free - 2**24
    del part
    cuda.synchronize()
    assert cuda.memory() == (free, total)


def test_out_of_memory_leaves_the_library_usable() -> None:
    _, total = cuda.memory()
    with pytest.raises(
        MemoryError, match=r"^cuda: out of memory: \d+ MiB requested, \d+ MiB of \d+ MiB free"
    ):
        cuda.empty(total + 2**20, np.uint8)
    a = random_array((5,))
    assert same_bits(ops.relu(cuda.array(a)).numpy(), ops.relu(a))


def test_mixing_devices_raises() -> None:
    a, b = random_array((4, 3)), random_array((3, 2))
    text = "must be on the same device, got"
    with raises(TypeError, f"matmul: a and b {text} the GPU and the CPU"):
        ops.matmul(cuda.array(a), b)
    with raises(TypeError, f"matmul: a and b {text} the CPU and the GPU"):
        ops.matmul(a, cuda.array(b))
    with raises(TypeError, f"matmul: a and out {text} the GPU and the CPU"):
        ops.matmul(cuda.array(a), cuda.array(b), out=np.empty((4, 2), np.float32))
    labels = np.zeros(4, np.int64)
    with raises(TypeError, f"softmax_cross_entropy: logits and labels {text} the GPU and the CPU"):
        ops.softmax_cross_entropy(cuda.array(a), labels)
    with Program() as program:
        ops.relu(a)
        text = f"arrays of a program {text} the CPU and the GPU"
        with raises(TypeError, f"relu: {text}"):
            ops.relu(cuda.array(a))
    assert len(program) == 1


def test_integers_on_the_gpu_must_be_int64() -> None:
    x = cuda.array(random_array((4, 3)))
    with raises(TypeError, "gather: indices must be int64 on the GPU, got uint64"):
        ops.gather(x, cuda.array(np.zeros(2, np.uint64)))
    with raises(ValueError, "gather: indices must be in [0, 4), got 4 at index 1"):
        ops.gather(x, cuda.array(np.array([3, 4])))
    with raises(ValueError, "gather: indices must have 1 dimension, got 2"):
        ops.gather(x, cuda.array(np.zeros((1, 1), np.int64)))


@pytest.mark.parametrize("versioned", [True, False])
def test_dlpack_shares_memory(versioned: bool) -> None:
    a = random_array((3, 4))
    array = cuda.array(a)
    exporter = Dlpack(array, versioned)
    taken = cuda.array(exporter)
    assert address(taken) == address(array)
    assert exporter.streams == [array.stream]
    taken.fill(a + 1)
    assert same_bits(array.numpy(), a + 1)
    assert same_bits(ops.relu(exporter).numpy(), a + 1)
    # The memory exists as long as any reference to it.
    del array, exporter
    gc.collect()
    assert same_bits(taken.numpy(), a + 1)


@pytest.mark.parametrize("make", [Dlpack, Interface])
def test_empty_array_with_a_shape_product_above_64_bits(make: Any) -> None:
    shape = (0, 2**40, 2**40)
    taken = cuda.array(make(cuda.empty(shape)))
    assert taken.shape == shape
    assert cuda.array(make(taken)).shape == shape


def test_unconsumed_capsule_frees_its_memory() -> None:
    gc.collect()
    cuda.synchronize()
    before = cuda.memory()
    for version in (None, (0, 8), (1, 0), (2, 0)):
        cuda.zeros(2**20, np.uint8).__dlpack__(max_version=version)
    gc.collect()
    cuda.synchronize()
    assert cuda.memory() == before


def test_unsupported_dlpack_requests() -> None:
    array = cuda.array(random_array((3,)))
    assert array.__dlpack_device__() == (2, 0)
    with pytest.raises(BufferError, match="dl_device must be"):
        array.__dlpack__(dl_device=(1, 0))
    with pytest.raises(ValueError, match="stream must not be 0"):
        array.__dlpack__(stream=0)
    assert array.__dlpack__(stream=-1) is not None
    copied = cuda.array(Dlpack(array.copy()))
    assert address(copied) != address(array)


def test_the_cuda_array_interface_shares_memory() -> None:
    a = random_array((3, 4))
    array = cuda.array(a)
    taken = cuda.array(Interface(array))
    assert address(taken) == address(array)
    assert same_bits(ops.relu(Interface(array)).numpy(), a)
    interface = array.__cuda_array_interface__
    assert interface["version"] == 3
    assert interface["stream"] == array.stream
    assert (interface["shape"], interface["typestr"]) == ((3, 4), "<f4")


def test_unsupported_foreign_arrays() -> None:
    array = cuda.array(random_array((4, 4)))
    strided = Interface(array, strides=(4, 16))
    text = "relu: an array on the GPU must be C-contiguous, got strides of (1, 4) elements for"
    with raises(ValueError, f"{text} the shape (4, 4)"):
        ops.relu(strided)
    with pytest.raises(TypeError, match=r"an array on the GPU must be float32, .*, got int32"):
        ops.relu(Interface(array, typestr="<i4"))
    start = array.__cuda_array_interface__["data"][0]
    with raises(ValueError, "relu: an array on the GPU must be aligned in memory"):
        ops.relu(Interface(array, shape=(3,), data=(start + 1, False)))
    read_only = Interface(array, data=(start, True))
    assert same_bits(ops.relu(read_only).numpy(), array.numpy())
    with raises(ValueError, "relu: out must be writeable"):
        ops.relu(array.copy(), out=cuda.array(read_only))


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"shape": (-1,)}, ValueError, "sizes must be at least 0, got shape (-1,)"),
        ({"shape": (1 << 62, 4)}, ValueError, "2**63 bytes, got shape (4611686018427387904, 4)"),
        ({"shape": (4,), "strides": (4, 4)}, ValueError, "got strides of (1, 1) elements for the"),
        ({"shape": (4,), "strides": (5,)}, ValueError, "must be C-contiguous, got strides of"),
        ({"data": (0, False)}, ValueError, "an array of shape (4, 4) must have an address"),
        ({"data": None}, TypeError, "must have shape (a tuple of integers), typestr and data"),
        ({"data": ("x", 0)}, TypeError, "must have shape (a tuple of integers), typestr and data"),
        ({"shape": None}, TypeError, "must have shape (a tuple of integers), typestr and data"),
        (
            {"typestr": "|V0", "strides": (4, 4)},
            TypeError,
            "must be float32, float64, uint8, uint16",
        ),
        ({"typestr": 7}, TypeError, "must have shape (a tuple of integers), typestr and data"),
        ({"mask": 1}, TypeError, "__cuda_array_interface__ must have no mask"),
        ({"stream": 0}, ValueError, "__cuda_array_interface__: stream must not be 0"),
    ],
)
def test_invalid_cuda_array_interfaces(
    changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)):
        ops.relu(Interface(cuda.array(random_array((4, 4))), **changes))


def test_arrays_from_other_threads() -> None:
    """Each thread has its own stream. Operations wait for the streams of their operands."""
    made: list[cuda.Array] = []

    def work() -> None:
        x = cuda.array(np.full((256, 256), 1 / 256, np.float32))
        for _ in range(50):
            x = ops.matmul(x, x)
        made.append(x)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = made[0]
    for other in made[1:]:
        total = ops.matmul(total, other)
    # Powers of two, so the result is exact.
    assert np.all(total.numpy() == 1 / 256)
