"""The command `chainrule`: `chainrule mnist`, `predict`, `tutorial` and `info`.

The commands are in `chainrule.cli.commands`, and their exit codes in `chainrule.cli.exit_codes`.
This module imports neither click nor the commands before `main` runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .._optional import require
from .exit_codes import FAILURE, INTERRUPTED

__all__ = ["main"]

# Bad input, a full disk, a missing extra and a diverged training raise these. Any other exception
# is a defect of chainrule, and a bug report requires its traceback.
EXPECTED = (OSError, ValueError, ImportError, MemoryError, ArithmeticError, RuntimeError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments after the program's name. The default is ``sys.argv[1:]``.

    Returns
    -------
    int
        Exit code: 0 after success, 1 after a failure (one message without a traceback), 2 for an
        invalid command line, and 130 after Ctrl-C.

    Examples
    --------
    >>> from chainrule.cli import main
    >>> main(["--version"])  # doctest: +ELLIPSIS
    chainrule, version ...
    0
    """
    for stream in (sys.stdout, sys.stderr):
        # Print "?" for a character that the terminal's encoding lacks.
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
        # The reader (`| head`) closed the pipe. Redirect stdout, so that Python's flush at exit
        # does not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except EXPECTED as error:
        message = str(error) or type(error).__name__
        print(f"chainrule: {message}", file=sys.stderr)
        return FAILURE
