"""The cases: one module per operation, named like its kernel, and complete trainings."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from bench.harness.case import Case


def all_cases(quick: bool, device: str = "cpu") -> dict[str, tuple[str, Case]]:
    """Return every case by name, with the name of its module.

    ``quick`` cases are small, for a test of the benchmark itself.
    """
    found: dict[str, tuple[str, Case]] = {}
    for module in pkgutil.iter_modules(__path__):
        cases: Iterable[Case] = importlib.import_module(f"{__name__}.{module.name}").cases(
            quick, device
        )
        for case in cases:
            assert case.name not in found, f"two cases have the name {case.name}"
            found[case.name] = (module.name, case)
    return found


def select(
    group: str, prefixes: list[str], quick: bool, device: str = "cpu"
) -> dict[str, tuple[str, Case]]:
    """Return the cases of a group, restricted to exact names or prefixes if there are any.

    Raises SystemExit if a prefix has no case.
    """
    cases = {
        name: (module, case)
        for name, (module, case) in all_cases(quick, device).items()
        if case.group == group
    }
    selected: set[str] = set()
    for prefix in prefixes:
        matches = {prefix} & set(cases) or {name for name in cases if name.startswith(prefix)}
        if not matches:
            raise SystemExit(
                f"{group}: a case must start with {prefix!r}; the cases are {', '.join(cases)}"
            )
        selected |= matches
    return {name: pair for name, pair in cases.items() if not prefixes or name in selected}
