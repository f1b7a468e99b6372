"""The fixtures `backend` and `threads`, the settings of hypothesis, and the report header."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from cuda_adapter import OnGpu

# Assertions in these modules then show the compared values, as assertions in tests do.
pytest.register_assert_rewrite("assertions", "op_contract")

# Deterministic and without a deadline: a property that fails here fails on every machine.
settings.register_profile(
    "chainrule",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("chainrule")


def _backends() -> list[str]:
    """Return all backends that run here, or only CHAINRULE_BACKEND if it is set, as in CI."""
    forced = os.environ.get("CHAINRULE_BACKEND")
    if forced:
        return [forced]
    import chainrule

    return list(chainrule.backends())


def _on_gpu() -> list[str]:
    """Return ["cuda"] if a GPU is usable and CHAINRULE_TEST_CUDA is not 0."""
    import chainrule

    wanted = os.environ.get("CHAINRULE_TEST_CUDA", "1") != "0"
    return ["cuda"] if wanted and chainrule.cuda.is_available() else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        # Tests of operations also run on the GPU, unless their module sets CPU_ONLY. Programs and
        # networks on the GPU are tested in tests/cuda.
        in_ops = metafunc.definition.path.parent.name == "ops"
        gpu = _on_gpu() if in_ops and not getattr(metafunc.module, "CPU_ONLY", False) else []
        metafunc.parametrize("backend", [*_backends(), *gpu], indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Activate each backend in turn, and restore the previous one after the test."""
    import chainrule

    if request.param == "cuda":
        with pytest.MonkeyPatch.context() as patch:
            for module in vars(chainrule.ops).values():
                if hasattr(module, "_core"):
                    patch.setattr(module, "_core", OnGpu())
            yield "cuda"
        return
    before = chainrule.info()["backend"]
    chainrule.set_backend(request.param)
    yield request.param
    chainrule.set_backend(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore the number of threads after a test that changes it."""
    import chainrule

    before = chainrule.get_num_threads()
    yield
    chainrule.set_num_threads(before)


def pytest_report_header() -> list[str]:
    try:
        import chainrule
    except ImportError as error:
        return [f"chainrule: cannot be imported: {error}"]
    info = chainrule.info()
    data = os.environ.get("CHAINRULE_DATA")
    return [
        f"chainrule {info['version']} from {os.path.dirname(chainrule.__file__)}",
        f"backends compiled: {', '.join(info['backends_compiled'])}; "
        f"runnable: {', '.join(info['backends_runnable'])}; chosen: {info['backend']}; "
        f"tested: {', '.join([*_backends(), *_on_gpu()])}",
        f"threads: {info['threads']}; CUDA: {info['cuda']}; "
        f"CHAINRULE_DATA: {data or 'not set, tests of real data skip'}",
    ]
