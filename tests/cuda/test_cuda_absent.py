"""The library without a GPU: it gives the reason, and everything on the CPU works."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from op_contract import raises

REASON = cr.cuda.why_off()
if not REASON:
    pytest.skip("this machine has a GPU", allow_module_level=True)


class ForeignArray:
    """An array of another library on a GPU, through DLPack."""

    def __dlpack__(self, **options: object) -> object:
        raise AssertionError("__dlpack__ must not be called without a GPU")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


class Interface:
    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {"shape": (1,), "typestr": "<f4", "data": (0, False), "version": 3}


def small_network() -> cr.Sequential:
    return cr.Sequential(cr.Linear(2), input_shape=(3,), seed=0)


def test_reason_is_one_line() -> None:
    assert "\n" not in REASON
    assert cr.info()["cuda"] == f"off: {REASON}"
    assert not cr.cuda.is_available()


@pytest.mark.parametrize(
    ("who", "call"),
    [
        ("cuda.array", lambda: cr.cuda.array(np.zeros(3, np.float32))),
        ("cuda.empty", lambda: cr.cuda.empty(3)),
        ("cuda.zeros", lambda: cr.cuda.zeros(3)),
        ("cuda.synchronize", cr.cuda.synchronize),
        ("cuda.memory", cr.cuda.memory),
        ("cuda.description", cr.cuda.description),
        ("to", lambda: small_network().to("cuda")),
        ("relu", lambda: cr.ops.relu(ForeignArray())),
        ("relu", lambda: cr.ops.relu(Interface())),
    ],
)
def test_calls_that_need_a_gpu_raise_with_the_reason(who: str, call: object) -> None:
    with raises(RuntimeError, f"{who}: CUDA is off: {REASON}"):
        call()  # type: ignore[operator]


def test_network_stays_on_the_cpu_after_the_error() -> None:
    net = small_network()
    with pytest.raises(RuntimeError):
        net.to("cuda")
    assert net.device == "cpu"
    assert net.predict(np.ones((1, 3), np.float32)).shape == (1, 2)


def test_to_cpu_changes_nothing() -> None:
    net = small_network()
    before = net.vector
    assert net.to("cpu") is net
    assert net.vector is before
    with raises(ValueError, 'to: device must be "cpu" or "cuda", got \'tpu\''):
        net.to("tpu")


def test_matmul_precision_can_be_set_without_a_gpu() -> None:
    assert cr.get_matmul_precision() == "highest"
    cr.set_matmul_precision("tf32")
    assert cr.get_matmul_precision() == "tf32"
    cr.set_matmul_precision("highest")
    text = 'set_matmul_precision: precision must be "highest" or "tf32", got "fast"'
    with raises(ValueError, text):
        cr.set_matmul_precision("fast")
