"""The command `chainrule`: `train`, `evaluate`, `predict`, `mnist`, `tutorial` and `info`.

Each command is in a module of its name, and the group of them in `chainrule.cli.commands`. Exit
codes are in `chainrule.cli.exit_codes`, and options of several commands in `chainrule.cli.options`.
This module imports neither click nor the commands before `main` runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .._optional import require
from .exit_codes import FAILURE, INTERRUPTED, SUCCESS
from .output import guarded_output

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
        Exit code: 0 after success, 1 after a failure (one message without a traceback) or if the
        result could not be written to standard output, 2 for an invalid command line, and 130 after
        Ctrl-C. A standard error that cannot be written changes no exit code.

    Examples
    --------
    >>> from chainrule.cli import main
    >>> main(["--version"])  # doctest: +ELLIPSIS
    chainrule, version ...
    0
    """
    with guarded_output() as (out, _):
        code = _run(arguments)
        out.flush()
        if out.error is not None and code == SUCCESS:
            # The reader of a pipe, such as `| head`, may leave when it has read enough.
            if not isinstance(out.error, BrokenPipeError):
                print(f"chainrule: standard output: {out.error}", file=sys.stderr)
            code = FAILURE
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        require("click")
        from .commands import run

        return run(arguments)
    except KeyboardInterrupt:
        print("\nchainrule: interrupted", file=sys.stderr)
        return INTERRUPTED
    except EXPECTED as error:
        message = str(error) or type(error).__name__
        print(f"chainrule: {message}", file=sys.stderr)
        return FAILURE
