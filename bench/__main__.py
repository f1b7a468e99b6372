"""Measurements of chainrule. Each result has the machine and the commit it was measured with.

python -m bench kernels|training [CASE ...] [--device cuda] [--peer torch,tensorflow,jax,numpy]
                                 [--threads N] [--peer-python torch=PYTHON] [--json FILE]
                                 [--goals] [--list]
python -m bench import           import time, size of the wheel, peak memory
python -m bench goals            compare stored results with bench/report/goals.toml; exit code 1
                                 if a goal is not met
python -m bench --goals          measure everything and compare it with the goals
python -m bench accuracy [cnn|lenet|mlp ...] [--device cuda] [--seeds N] [--json FILE]
python -m bench tables [--seeds N] [--small] [--json FILE]
                                 tables of numbers: score and speed, against scikit-learn
python -m bench report           write the READMEs' tables and the roofline from bench/results/
bench/gpu.sh OUT test|sanitize|bench    everything that requires a GPU, in three parts
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import accuracy, imports, speed, tables
from bench.report import goals, write


def measure_all() -> int:
    """Measure all cases of all groups with their defaults, and compare them with the goals."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=measure_all.__doc__)
    speed.add_common_arguments(parser)
    parser.add_argument("--wheel", type=Path, help="an existing wheel (default: build one)")
    options = parser.parse_args()
    records = speed.measure("kernels", options) | speed.measure("training", options)
    if options.device == "cpu":
        records |= imports.measure(options)
    return int(goals.show(records, options.device, not options.quick) > 0)


def main() -> int:
    # Options without a command measure everything.
    if sys.argv[1:] and sys.argv[1].startswith("--") and "--goals" in sys.argv:
        return measure_all()
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
        "tables": tables,
        "report": write,
    }
    for name, module in modules.items():
        command = commands.add_parser(name, help=module.__doc__, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run, group=name)
    options = parser.parse_args()
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
