"""Without a GPU: the library says why, refuses in one sentence, and is otherwise as ever."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from op_contract import refused

REASON = cr.cuda.why_off()
if not REASON:
    pytest.skip("there is a GPU: nothing is absent", allow_module_level=True)


class OnAGpu:
    """What another library's array on a GPU looks like."""

    def __dlpack__(self, **options: object) -> object:
        raise AssertionError("asked for memory that cannot be reached")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


class Interface:
    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {"shape": (1,), "typestr": "<f4", "data": (0, False), "version": 3}


def small() -> cr.Sequential:
    return cr.Sequential(cr.Linear(2), input_shape=(3,), seed=0)


def test_why_is_one_line() -> None:
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
        ("to", lambda: small().to("cuda")),
        ("relu", lambda: cr.ops.relu(OnAGpu())),
        ("relu", lambda: cr.ops.relu(Interface())),
    ],
)
def test_all_that_needs_a_gpu_says_why_there_is_none(who: str, call: object) -> None:
    with refused(RuntimeError, f"{who}: CUDA is off: {REASON}"):
        call()  # type: ignore[operator]


def test_a_refused_network_stays_where_it_is() -> None:
    net = small()
    with pytest.raises(RuntimeError):
        net.to("cuda")
    assert net.device == "cpu"
    assert net.predict(np.ones((1, 3), np.float32)).shape == (1, 2)


def test_to_the_cpu_is_no_move() -> None:
    net = small()
    before = net.vector
    assert net.to("cpu") is net
    assert net.vector is before
    with refused(ValueError, 'to: device must be "cpu" or "cuda", got \'tpu\''):
        net.to("tpu")


def test_precision_can_be_chosen_beforehand() -> None:
    assert cr.get_matmul_precision() == "highest"
    cr.set_matmul_precision("tf32")
    assert cr.get_matmul_precision() == "tf32"
    cr.set_matmul_precision("highest")
    text = 'set_matmul_precision: precision must be "highest" or "tf32", got "fast"'
    with refused(ValueError, text):
        cr.set_matmul_precision("fast")
