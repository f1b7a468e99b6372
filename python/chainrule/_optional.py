"""Optional dependencies: imported when first used, and named with their remedy when absent."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str = "cli") -> ModuleType:
    """Import `module`, which the extra `extra` of this package installs.

    Raises
    ------
    ImportError
        Where the module is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        # A module that is there but lacks one of its own dependencies must report that one.
        if missing.partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(
            f'{module} is not installed: pip install "chainrule[{extra}]"', name=missing
        ) from error
