"""Measure cases: one long-lived process per library, checked first, then timed alternately."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import gpu, machine, probe, timing
from bench.harness.case import LIBRARIES, Array, Case, relative_error
from bench.harness.library_process import LibraryProcess, Settings, UnavailableError

SEED = 20260101
MAX_ATTEMPTS = 3
# Largest relative change of the probe during a case. Beyond it the case is repeated or "noisy".
MAX_PROBE_CHANGE = 0.03

Probe = probe.Probe | gpu.Probe
# A variant's name in the process of its library.
RemoteVariant = tuple[LibraryProcess, str]


class Driver:
    """The processes of all libraries, and the measurement of cases with them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.machine = machine.info() | {"threads": settings.threads}
        self.unavailable: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._processes: dict[tuple[str, str], LibraryProcess] = {}
        load = os.getloadavg()[0]
        if load > 0.3:
            print(f"bench: other programs are running: load average {load:.1f}", flush=True)
        self._folder = tempfile.TemporaryDirectory(prefix="chainrule-bench-")

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.close()
        self._folder.cleanup()

    def process(self, name: str, case: Case) -> LibraryProcess | None:
        """Return the process of a library for a case; None if the library cannot be imported."""
        environment = case.environment.get(name, {})
        key = (name, json.dumps(environment, sort_keys=True))
        if key in self._processes:
            return self._processes[key]
        if name in self.unavailable:
            return None
        try:
            process = LibraryProcess(name, self.settings, environment)
        except UnavailableError as error:
            if name == "chainrule":
                raise SystemExit(f"bench: chainrule: {error}") from None
            self.unavailable[name] = str(error)
            print(f"{name}: {error}", flush=True)
            return None
        self.versions[name] = process.info["version"]
        if "gpu" in process.info:
            self.machine["gpu"] = process.info["gpu"]
        for component in ("cuda", "cudnn"):
            if component in process.info:
                self.versions[f"{name}'s {component}"] = str(process.info[component])
        self._processes[key] = process
        return process

    def measure(self, module: str, case: Case) -> dict[str, Any]:
        """Check and time one case, and return its record.

        The case is repeated if the probe changes, that is if the machine's own speed does.
        """
        names = [
            name
            for name in LIBRARIES
            if name in case.variants and name in ("chainrule", *self.settings.peers)
        ]
        processes = [found for name in names if (found := self.process(name, case))]
        variants, excluded = self._correct_variants(module, case, processes)
        if not any(process.name == "chainrule" for process, _ in variants):
            return self._record(case, {}, excluded, None, None)
        counts = {variant: self._call_count(case, *variant) for variant in variants}
        best: tuple[float, dict[str, timing.Summary], Probe, Probe] | None = None
        for _ in range(1 if self.settings.quick or case.is_training else MAX_ATTEMPTS):
            before = self._probe(case)
            summaries = self._time_rounds(case, variants, counts, excluded)
            after = self._probe(case)
            # Both probes have the same class.
            change = before.relative_change(after, case.bound)  # type: ignore[arg-type]
            if best is None or change < best[0]:
                best = (change, summaries, before, after)
            if change <= MAX_PROBE_CHANGE:
                break
        assert best is not None
        for process in processes:
            if process.broken:
                process.restart()
            process.request("drop_case")
        return self._record(case, best[1], excluded, best[2], best[3])

    def _call_count(self, case: Case, process: LibraryProcess, variant: str) -> int:
        if case.is_training:
            return 1
        answer = process.request("calibrate", variant=variant, seconds=self.settings.seconds)
        return int(answer.get("count", 1))

    def _probe(self, case: Case) -> Probe:
        if self.settings.device == "cuda":
            process = self.process("chainrule", case)
            assert process is not None
            if process.broken:
                process.restart()
            seconds = 0.002 if self.settings.quick else 0.01
            answer = process.request("probe", seconds=seconds, tiny=self.settings.quick)
            if "error" in answer:
                raise SystemExit(f"bench: the probe of the GPU failed: {answer['error']}")
            self.machine["gpu"]["state"] = answer["state"]
            return gpu.Probe(**answer["probe"])
        isa = case.isa or self.machine["backend"]
        seconds = 0.002 if self.settings.quick else 0.015
        return probe.measure(isa, self.settings.threads, int(case.nbytes), seconds)

    def _correct_variants(
        self, module: str, case: Case, processes: list[LibraryProcess]
    ) -> tuple[list[RemoteVariant], dict[str, str]]:
        """Return the variants with correct results, and why the others are excluded."""
        excluded = {
            name: reason for name, reason in self.unavailable.items() if name in case.variants
        }
        reference = None
        if case.reference is not None:
            reference = case.reference(case.inputs(np.random.default_rng(SEED)))
        correct: list[RemoteVariant] = []
        for process in processes:
            answer = self._set_up_case(process, module, case)
            if "error" in answer:
                excluded[process.name] = answer["error"]
            for variant in answer.get("variants", []):
                if "compile" in variant and not self.settings.compile:
                    continue
                name = f"{process.name} {variant}"
                error = self._check(process, variant, reference, case.tolerance)
                if error:
                    excluded[name] = error
                    process.request("drop_variant", variant=variant)
                    print(f"  {case.name}: {name}: {error}", flush=True)
                else:
                    correct.append((process, variant))
                if process.broken:
                    process.restart()
                    self._set_up_case(process, module, case)
                    for other, built in correct:
                        if other is process:
                            process.request("build", variant=built)
        return correct, excluded

    def _set_up_case(self, process: LibraryProcess, module: str, case: Case) -> dict[str, Any]:
        quick = self.settings.quick
        return process.request("set_up_case", module=module, case=case.name, quick=quick, seed=SEED)

    def _check(
        self,
        process: LibraryProcess,
        variant: str,
        reference: tuple[Array, ...] | None,
        tolerance: float,
    ) -> str:
        """Return the error of a variant's results; an empty string if they are correct."""
        path = Path(self._folder.name) / "result.npz"
        answer = process.request("save_result", variant=variant, file=str(path))
        if "error" in answer:
            return str(answer["error"])
        with np.load(path) as results:
            arrays = tuple(results[key] for key in results.files)
        path.unlink(missing_ok=True)
        if reference is None:
            return ""
        try:
            error = relative_error(arrays, reference)
        except ValueError as mismatch:
            return f"wrong: {mismatch}"
        if error > tolerance:
            return f"wrong: relative error {error:.1e}, tolerance {tolerance:.0e}"
        return ""

    def _time_rounds(
        self,
        case: Case,
        variants: list[RemoteVariant],
        counts: Mapping[RemoteVariant, int],
        excluded: dict[str, str],
    ) -> dict[str, timing.Summary]:
        """Time each variant once per round."""
        seconds: dict[str, list[float]] = {f"{lib.name} {variant}": [] for lib, variant in variants}
        rounds = self.settings.rounds
        if case.rounds is not None and not self.settings.quick:
            rounds = case.rounds
        for _ in range(rounds):
            for process, variant in variants:
                name = f"{process.name} {variant}"
                if name in excluded:
                    continue
                count = counts[process, variant]
                answer = process.request(
                    "time", variant=variant, count=count, warm_up=not case.is_training
                )
                if "error" in answer:
                    excluded[name] = answer["error"]
                    print(f"  {case.name}: {name}: {answer['error']}", flush=True)
                else:
                    seconds[name].append(answer["seconds"])
        return {
            name: timing.Summary(tuple(times))
            for name, times in seconds.items()
            if times and name not in excluded
        }

    def _record(
        self,
        case: Case,
        summaries: Mapping[str, timing.Summary],
        excluded: Mapping[str, str],
        before: Probe | None,
        after: Probe | None,
    ) -> dict[str, Any]:
        """Return everything about a measured case, in the form of the JSON files."""
        noisy = None
        if before and after:
            change = before.relative_change(after, case.bound)  # type: ignore[arg-type]
            noisy = change > MAX_PROBE_CHANGE
        return {
            "command": f"{self.settings.command} {case.name}",
            "machine": copy.deepcopy(self.machine),
            "versions": dict(self.versions),
            "environment": dict(case.environment.get("chainrule", {})),
            "flops": case.flops,
            "bytes": case.nbytes,
            "bound": case.bound,
            "noisy": noisy,
            "probes": [dataclasses.asdict(probe) for probe in (before, after) if probe],
            "variants": {
                name: {
                    "median": summary.median,
                    "best": summary.best,
                    "spread": summary.spread,
                    "rounds": list(summary.rounds),
                }
                for name, summary in summaries.items()
            },
            "excluded": dict(excluded),
        }
