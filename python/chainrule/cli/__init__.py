"""The command `chainrule`: `chainrule mnist`, `predict`, `tutorial` and `info`.

Here is only what holds for all of them: where to get click, and how a run ends. Exit codes: 0 when
all went well, 1 after a failure (one message, no traceback), 2 for a command line that makes no
sense, 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .._optional import require

__all__ = ["main"]

FAILURE = 1
INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended: 128 + SIGINT

# What bad input, a full disk, a missing extra or a diverged training raise. Anything else is a
# fault of ours, and its traceback is what a report of it needs.
EXPECTED = (OSError, ValueError, ImportError, MemoryError, ArithmeticError, RuntimeError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the program's name; by default that of this process.

    Returns
    -------
    int
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal whose encoding lacks a sign shows "?" for it.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        require("click")
        from .commands import run

        return run(arguments)
    except KeyboardInterrupt:
        print("\nchainrule: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has left; Python's own flush at exit must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except EXPECTED as error:
        message = str(error) or type(error).__name__
        print(f"chainrule: {message}", file=sys.stderr)
        return FAILURE
