"""One library's process: it builds legs, shows their results and times slices, as it is told.

Started by `bench.harness.driver` with any interpreter that has NumPy and the library. It reads one
line of JSON per request from standard input and answers on standard output.
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

# Also for a peer's interpreter, which has no reason to find this package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


class Worker:
    def __init__(self, library: str, threads: int, device: str) -> None:
        self.library, self.threads, self.device = library, threads, device
        self.legs: dict[str, Any] = {}
        self.builders: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        """Import the library, with its threads set; its version."""
        if self.library == "torch":
            import torch

            torch.set_num_threads(self.threads)
            torch.set_grad_enabled(False)
            if self.device == "cuda":
                from bench.peers import gpu_torch

                gpu_torch.strict()
        elif self.library == "tensorflow":
            import tensorflow

            tensorflow.config.threading.set_intra_op_parallelism_threads(self.threads)
            tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        module = importlib.import_module(self.library)
        facts: dict[str, Any] = {"version": str(getattr(module, "__version__", "?"))}
        if self.library == "chainrule":
            facts |= {"backend": module.info()["backend"], "compiler": module.info()["compiler"]}
            if self.device == "cuda":
                from bench.harness import gpu

                facts["gpu"] = gpu.facts()
        elif self.library == "torch" and self.device == "cuda":
            facts["cuda"], facts["cudnn"] = module.version.cuda, module.backends.cudnn.version()
        return facts

    def setup(self, module: str, case: str, quick: bool, seed: int) -> dict[str, Any]:
        """Make a case's inputs; the names of this library's variants."""
        import numpy as np

        from bench.harness.case import Case

        self.drop()
        cases: dict[str, Case] = {
            one.name: one
            for one in importlib.import_module(f"bench.cases.{module}").cases(quick, self.device)
        }
        legs = cases[case].legs.get(self.library)
        if legs is None:
            return {"variants": []}
        self.builders = dict(legs(cases[case].inputs(np.random.default_rng(seed))))
        return {"variants": list(self.builders)}

    def build(self, variant: str) -> dict[str, Any]:
        """Build a variant, without a look at its results."""
        self.legs[variant] = self.builders[variant]()
        return {}

    def check(self, variant: str, file: str) -> dict[str, Any]:
        """Build a variant, run it and leave its results in ``file``."""
        import numpy as np

        self.build(variant)
        np.savez(file, *self.legs[variant].result())
        return {}

    def calibrate(self, variant: str, seconds: float) -> dict[str, Any]:
        from bench.harness import timing

        leg = self.legs[variant]
        return {"count": timing.calls_in(leg.call, seconds, leg.wait)}

    def time(self, variant: str, count: int, warm: bool) -> dict[str, Any]:
        from bench.harness import timing

        leg, run = self.legs[variant], timing.slice_of if warm else timing.loop
        return {"seconds": run(leg.call, count, leg.wait) / leg.operations}

    def probe(self, seconds: float, tiny: bool) -> dict[str, Any]:
        """Probe the GPU, from the process that has chainrule."""
        from bench.harness import gpu

        return {"probe": dataclasses.asdict(gpu.measure(seconds, tiny)), "now": gpu.now()}

    def forget(self, variant: str) -> dict[str, Any]:
        """Let go of one variant, which is not timed."""
        self.legs.pop(variant, None)
        gc.collect()
        return {}

    def drop(self) -> dict[str, Any]:
        """Let go of everything that the last case held."""
        self.legs.clear()
        self.builders.clear()
        if self.library == "torch" and "torch._dynamo" in sys.modules:
            sys.modules["torch._dynamo"].reset()
        gc.collect()
        if self.library == "torch" and self.device == "cuda":
            sys.modules["torch"].cuda.empty_cache()
        return {}

    def memory(self) -> dict[str, Any]:
        """Return the most memory this process has ever had, in bytes."""
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    # Before the library starts: its own pools follow the CPUs that they find.
    if hasattr(os, "sched_setaffinity") and options.device == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    # Whatever the library prints must not land between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(options.library, options.threads, options.device)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as wrong:
            last = traceback.extract_tb(wrong.__traceback__)[-1]
            said = (str(wrong).splitlines() or [""])[0]
            where = f"{Path(last.filename).name}:{last.lineno}"
            answer = {"error": f"{type(wrong).__name__}: {said} ({where})"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
