"""Measurements of chainrule, each with the machine and the commit that made it.

python -m bench kernels|training [CASE ...] [--device cuda] [--peer torch,tensorflow,jax,numpy]
                                 [--threads N] [--peer-python torch=PYTHON] [--json FILE]
                                 [--goals] [--list]
python -m bench import           time to import, size of the wheel, peak memory
python -m bench goals            kept results beside bench/report/goals.toml; 1 on a shortfall
python -m bench --goals          measure everything, then that table
python -m bench accuracy [cnn|lenet|mlp ...] [--device cuda] [--seeds N] [--json FILE]
bench/gpu.sh OUT test|sanitize|bench    everything that wants a GPU, in three calls
python -m bench report           write the README's tables and the roofline from bench/results/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import accuracy, imports, speed
from bench.report import goals, write


def everything() -> int:
    """Measure all cases of all groups with their defaults, and compare them with the goals."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=everything.__doc__)
    speed.common(parser)
    parser.add_argument("--wheel", type=Path, help="a built wheel (default: build one)")
    options = parser.parse_args()
    records = speed.measure("kernels", options) | speed.measure("training", options)
    if options.device == "cpu":
        records |= imports.measure(options)
    return int(goals.show(records, options.device, not options.quick) > 0)


def main() -> int:
    # Options alone are for all of it.
    if sys.argv[1:] and sys.argv[1].startswith("--") and "--goals" in sys.argv:
        return everything()
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    modules = {
        "kernels": speed,
        "training": speed,
        "import": imports,
        "goals": goals,
        "accuracy": accuracy,
        "report": write,
    }
    for name, module in modules.items():
        command = commands.add_parser(name, help=module.__doc__, description=module.__doc__)
        module.arguments(command)
        command.set_defaults(run=module.run, group=name)
    options = parser.parse_args()
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
