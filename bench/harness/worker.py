"""The program in the process of one library: it builds variants, returns results, times slices.

`bench.harness.driver` starts it with any interpreter that has NumPy and the library. It reads one
request as a line of JSON from standard input and writes its answer to standard output.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib
import json
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

# The interpreter of a peer has no other path to this package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


class Worker:
    """The requests that `LibraryProcess.request` can make. Each returns a dict of JSON values."""

    def __init__(self, library: str, threads: int, device: str) -> None:
        self.library, self.threads, self.device = library, threads, device
        self.variants: dict[str, Any] = {}
        self.builders: dict[str, Any] = {}

    def load_library(self) -> dict[str, Any]:
        """Import the library, set its number of threads and return its version."""
        if self.library == "torch":
            import torch

            torch.set_num_threads(self.threads)
            torch.set_grad_enabled(False)
            if self.device == "cuda":
                from bench.peers import step_torch

                step_torch.configure_cuda()
        elif self.library == "tensorflow":
            import tensorflow

            tensorflow.config.threading.set_intra_op_parallelism_threads(self.threads)
            tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        module = importlib.import_module(self.library)
        info: dict[str, Any] = {"version": str(getattr(module, "__version__", "?"))}
        if self.library == "chainrule":
            info |= {"backend": module.info()["backend"], "compiler": module.info()["compiler"]}
            if self.device == "cuda":
                from bench.harness import gpu

                info["gpu"] = gpu.info()
        elif self.library == "torch" and self.device == "cuda":
            info["cuda"], info["cudnn"] = module.version.cuda, module.backends.cudnn.version()
        return info

    def set_up_case(self, module: str, case: str, quick: bool, seed: int) -> dict[str, Any]:
        """Make the inputs of a case and return the names of this library's variants."""
        import numpy as np

        from bench.harness.case import Case

        self.drop_case()
        cases: dict[str, Case] = {
            case.name: case
            for case in importlib.import_module(f"bench.cases.{module}").cases(quick, self.device)
        }
        factory = cases[case].variants.get(self.library)
        if factory is None:
            return {"variants": []}
        self.builders = factory(cases[case].inputs(np.random.default_rng(seed)))
        return {"variants": list(self.builders)}

    def build(self, variant: str) -> dict[str, Any]:
        """Build a variant without computing its results."""
        self.variants[variant] = self.builders[variant]()
        return {}

    def save_result(self, variant: str, file: str) -> dict[str, Any]:
        """Build a variant, run it and write its results to ``file``."""
        import numpy as np

        self.build(variant)
        np.savez(file, *self.variants[variant].result())
        return {}

    def calibrate(self, variant: str, seconds: float) -> dict[str, Any]:
        """Return how many calls of a variant last about ``seconds``."""
        from bench.harness import timing

        built = self.variants[variant]
        return {"count": timing.calls_per_slice(built.call, seconds, built.wait)}

    def time(self, variant: str, count: int, warm_up: bool) -> dict[str, Any]:
        """Return the mean seconds per operation of ``count`` calls."""
        from bench.harness import timing

        built = self.variants[variant]
        measure = timing.time_slice if warm_up else timing.time_calls
        return {"seconds": measure(built.call, count, built.wait) / built.operations}

    def train_table(self, table: str, seed: int, small: bool) -> dict[str, Any]:
        """Train on a table and return the score on its test data. See `bench.peers.tables`."""
        from bench.peers import tables

        return tables.train(self.library, table, seed, small)

    def probe(self, seconds: float, tiny: bool) -> dict[str, Any]:
        """Probe the GPU, which requires chainrule."""
        from bench.harness import gpu

        probe = dataclasses.asdict(gpu.measure(seconds, tiny))
        return {"probe": probe, "state": gpu.state()}

    def drop_variant(self, variant: str) -> dict[str, Any]:
        """Free a variant that is not timed."""
        self.variants.pop(variant, None)
        gc.collect()
        return {}

    def drop_case(self) -> dict[str, Any]:
        """Free everything that belongs to the previous case."""
        self.variants.clear()
        self.builders.clear()
        if self.library == "torch" and "torch._dynamo" in sys.modules:
            sys.modules["torch._dynamo"].reset()
        gc.collect()
        if self.library == "torch" and self.device == "cuda":
            sys.modules["torch"].cuda.empty_cache()
        return {}

    def peak_memory(self) -> dict[str, Any]:
        """Return the largest resident memory of this process so far, in bytes."""
        return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    # Before the library is imported: its thread pools use the CPUs that are available then.
    if hasattr(os, "sched_setaffinity") and options.device == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    # The library's own output goes to standard error, so that it does not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(options.library, options.threads, options.device)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            answer = getattr(worker, request.pop("method"))(**request)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            message = (str(error).splitlines() or [""])[0]
            location = f"{Path(frame.filename).name}:{frame.lineno}"
            answer = {"error": f"{type(error).__name__}: {message} ({location})"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
