"""Modules that are imported when first used, and the error for one that is not installed.

A fork during an import in another thread leaves that module's lock locked in the child, for ever.
All imports on first use therefore hold one lock, and a fork waits until it is free.
"""

from __future__ import annotations

import importlib
import os
import threading
from types import ModuleType

# Reentrant: a module that is imported under this lock may import another, or fork.
importing = threading.RLock()
os.register_at_fork(
    before=importing.acquire,
    after_in_parent=importing.release,
    after_in_child=importing.release,
)


def lazy_import(module: str) -> ModuleType:
    """Import and return ``module`` while no other thread forks."""
    with importing:
        return importlib.import_module(module)


def require(module: str, extra: str = "cli") -> ModuleType:
    """Import and return `module`, which the extra `extra` of this package installs.

    Raises
    ------
    ImportError
        If the module is not installed, with the command that installs it.
    """
    try:
        return lazy_import(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        # If the module exists but one of its dependencies is missing, the error names that one.
        if missing.partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(
            f'{module} is not installed: pip install "chainrule[{extra}]"', name=missing
        ) from error
