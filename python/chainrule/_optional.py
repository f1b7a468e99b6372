"""Optional dependencies: imported when first used. The error says how to install them."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str = "cli") -> ModuleType:
    """Import and return `module`, which the extra `extra` of this package installs.

    Raises
    ------
    ImportError
        If the module is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        # If the module exists but one of its dependencies is missing, the error names that one.
        if missing.partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(
            f'{module} is not installed: pip install "chainrule[{extra}]"', name=missing
        ) from error
