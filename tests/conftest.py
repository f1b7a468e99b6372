"""The fixtures of all tests, hypothesis's settings, and a report header with build and data."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from cuda_adapter import OnGpu

# With rewriting, failed assertions of these modules also print the compared values.
pytest.register_assert_rewrite("assertions", "op_contract")

# Deterministic and without deadlines: a property that fails here fails on every machine.
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
    """Return the backends that run on this CPU, or only the one in CHAINRULE_BACKEND, as in CI."""
    forced = os.environ.get("CHAINRULE_BACKEND")
    if forced:
        return [forced]
    import chainrule

    return list(chainrule.backends())


def _on_gpu() -> list[str]:
    """Return ["cuda"] if a GPU is available, unless CHAINRULE_TEST_CUDA is 0; otherwise []."""
    import chainrule

    enabled = os.environ.get("CHAINRULE_TEST_CUDA", "1") != "0"
    return ["cuda"] if enabled and chainrule.cuda.is_available() else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        # The tests of operations also run on a GPU. Programs and networks on a GPU have separate
        # tests in tests/cuda.
        gpu = _on_gpu() if metafunc.definition.path.parent.name == "ops" else []
        metafunc.parametrize("backend", [*_backends(), *gpu], indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Activate a backend, yield its name, and restore the previous one after the test."""
    import chainrule

    if request.param == "cuda":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chainrule.ops, "_core", OnGpu())
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
