"""``python -m chainrule.examples`` lists the examples, or runs the one that is named."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

# The files of this folder that have a `main`.
NAMES = ("table", "images", "sweep", "own_layer", "deep", "approximation", "three_unit")


def listing() -> str:
    """Return the names of the examples, and the first sentence of each file."""
    width = max(map(len, NAMES))
    lines = ["usage: python -m chainrule.examples NAME [OPTION...]", ""]
    for name in NAMES:
        module = importlib.import_module(f"chainrule.examples.{name}")
        lines.append(f"  {name:{width}}  {(module.__doc__ or '').splitlines()[0]}")
    folder = Path(__file__).parent
    return "\n".join([*lines, "", f"NAME --help lists the options. The files are in {folder}"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one example, or list them.

    Parameters
    ----------
    arguments : sequence of str
        A name and its options. None means those of the command line.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in ("-h", "--help"):
        print(listing())
        return
    name, *options = given
    if name not in NAMES:
        sys.stderr.write(f"examples: name must be one of {', '.join(NAMES)}, got {name}\n")
        sys.exit(2)
    try:
        importlib.import_module(f"chainrule.examples.{name}").main(options)
    except (ArithmeticError, ImportError, MemoryError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
