"""Train the networks of `chainrule mnist` on the full MNIST, one run per seed, and store results.

A result has the accuracy on the test images and the training time in seconds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import chainrule as cr
from bench.harness import gpu, machine, records
from bench.harness.case import DEVICES
from chainrule.recipes import RECIPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--seeds", type=int, default=5, help="runs with seeds 0 .. N-1 (5)")
    parser.add_argument("--data", help="folder that contains MNIST (default: $CHAINRULE_DATA)")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="the device (cpu)")
    parser.add_argument("--epochs", type=int, help="number of epochs (default: the recipe's)")
    parser.add_argument("--json", type=Path, help="file of results (default: in bench/results)")


def train_and_test(
    name: str, seed: int, epochs: int, device: str, train: cr.data.Dataset, test: cr.data.Dataset
) -> dict[str, Any]:
    """Train like `chainrule mnist --network NAME --seed SEED` and return accuracy and seconds."""
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
        names = ", ".join(sorted(unknown))
        raise SystemExit(f"accuracy: networks must be among {', '.join(RECIPES)}, got {names}")
    train, test = cr.data.mnist(options.data, download=False)
    info, prefix = machine.info(), ""
    if options.device == "cuda":
        info, prefix = info | {"gpu": gpu.info()}, "cuda-"
    path = options.json or machine.RESULTS / f"{prefix}accuracy.json"
    results = records.read(path)
    for name in options.names or list(RECIPES):
        runs = []
        epochs = options.epochs or RECIPES[name].epochs
        for seed in range(options.seeds):
            result = train_and_test(name, seed, epochs, options.device, train, test)
            accuracy, seconds = result["accuracy"], result["seconds"]
            print(f"{name:6} seed {seed}  {accuracy:.2%}  {seconds:.1f} s", flush=True)
            runs.append(result)
        mean = sum(result["accuracy"] for result in runs) / len(runs)
        print(f"{name:6} mean    {mean:.3%} after {epochs} epochs")
        command = f"python -m bench accuracy {name} --seeds {options.seeds}"
        if options.device != "cpu":
            command += f" --device {options.device}"
        if options.epochs:
            command += f" --epochs {options.epochs}"
        results[name] = {
            "command": command,
            "epochs": epochs,
            "machine": info,
            "runs": runs,
        }
        records.write(path, results)
    return 0
