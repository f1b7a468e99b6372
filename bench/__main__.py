"""Measurements of chainrule, each with the machine and the commit that made it.

python -m bench accuracy [cnn|lenet|mlp ...] [--seeds N] [--json FILE]
python -m bench report                write the README's tables from bench/results/
"""

from __future__ import annotations

import argparse
import sys

from bench import accuracy, report


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    for module in (accuracy, report):
        name = module.__name__.removeprefix("bench.")
        command = commands.add_parser(name, help=module.__doc__, description=module.__doc__)
        module.arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args()
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
