"""The list of planted faults fits the sources: each text to replace occurs exactly once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="csrc/ is not beside tests/")


def planted_faults() -> ModuleType:
    """Return the module that plants them."""
    spec = importlib.util.spec_from_file_location(
        "planted_faults", ROOT / "tests/planted_faults/run.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # `dataclass` looks its module up by name
    spec.loader.exec_module(module)
    return module


def test_each_text_to_replace_occurs_once() -> None:
    counts = planted_faults().occurrences(ROOT)
    assert len(counts) > 40
    assert {name: count for name, count in counts.items() if count != 1} == {}


def test_each_fault_changes_its_file_and_names_tests_that_exist() -> None:
    faults = planted_faults().faults()
    assert len({fault.name for fault in faults}) == len(faults)
    for fault in faults:
        assert fault.new != fault.old, fault.name
        assert fault.tests, fault.name
        for test in fault.tests:
            assert (ROOT / test).is_file(), (fault.name, test)
