"""Train the recipes of `chainrule mnist` on all of MNIST, one run a seed, and measure them."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import chainrule as cr
from bench.harness import gpu, machine, records
from bench.harness.case import DEVICES
from chainrule.recipes import RECIPES


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--seeds", type=int, default=5, help="runs with seeds 0 .. N-1 (5)")
    parser.add_argument("--data", help="folder that holds MNIST (default: $CHAINRULE_DATA)")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where it runs (cpu)")
    parser.add_argument("--epochs", type=int, help="fewer or more than the recipe's, for a trial")
    parser.add_argument("--json", type=Path, help="where the results go (default: bench/results)")


def one_run(
    name: str, seed: int, epochs: int, device: str, train: cr.data.Dataset, test: cr.data.Dataset
) -> dict[str, Any]:
    """What `chainrule mnist --network NAME --seed SEED` does, without its pictures."""
    recipe = RECIPES[name]
    network = recipe.network(seed=seed).to(device)
    started = time.perf_counter()
    cr.fit(
        network,
        train,
        loss=cr.CrossEntropy(),
        optimizer=recipe.optimizer(),
        batch_size=recipe.batch_size,
        epochs=epochs,
        validation=recipe.validation,
        progress=False,
    )
    seconds = time.perf_counter() - started
    accuracy = cr.evaluate(network, test).accuracy
    return {"seed": seed, "accuracy": accuracy, "seconds": round(seconds, 2)}


def run(options: argparse.Namespace) -> int:
    unknown = set(options.names) - set(RECIPES)
    if unknown:
        raise SystemExit(f"accuracy: unknown networks {sorted(unknown)}; there are {list(RECIPES)}")
    train, test = cr.data.mnist(options.data, download=False)
    facts, prefix = machine.facts(), ""
    if options.device == "cuda":
        facts, prefix = facts | {"gpu": gpu.facts()}, "cuda-"
    target = options.json or machine.RESULTS / f"{prefix}accuracy.json"
    results = records.read(target)
    for name in options.names or list(RECIPES):
        runs = []
        epochs = options.epochs or RECIPES[name].epochs
        for seed in range(options.seeds):
            runs.append(one_run(name, seed, epochs, options.device, train, test))
            last = runs[-1]
            print(
                f"{name:6} seed {seed}  {last['accuracy']:.2%}  {last['seconds']:.1f} s", flush=True
            )
        mean = sum(one["accuracy"] for one in runs) / len(runs)
        print(f"{name:6} mean    {mean:.3%} after {epochs} epochs")
        command = f"python -m bench accuracy {name} --seeds {options.seeds}"
        if options.device != "cpu":
            command += f" --device {options.device}"
        if options.epochs:
            command += f" --epochs {options.epochs}"
        results[name] = {
            "command": command,
            "epochs": epochs,
            "machine": facts,
            "runs": runs,
        }
        records.write(target, results)
    return 0
