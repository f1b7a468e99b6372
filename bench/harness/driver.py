"""Runs cases: one long-lived process a library, checked first, then timed in turn."""

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
from bench.harness.case import LIBRARIES, Case, error
from bench.harness.library_process import AbsentError, Library, Settings

SEED = 20260101
ATTEMPTS = 3
STEADY = 0.03
Probe = probe.Probe | gpu.Probe


class Driver:
    """Keeps the libraries' processes and measures cases with them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.facts = machine.facts() | {"threads": settings.threads}
        self.absent: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._libraries: dict[tuple[str, str], Library] = {}
        load = os.getloadavg()[0]
        if load > 0.3:
            print(f"bench: the machine is busy already: load average {load:.1f}", flush=True)
        self._folder = tempfile.TemporaryDirectory(prefix="chainrule-bench-")

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        for library in self._libraries.values():
            library.close()
        self._folder.cleanup()

    def library(self, name: str, case: Case) -> Library | None:
        environment = case.environment.get(name, {})
        key = (name, json.dumps(environment, sort_keys=True))
        if key in self._libraries:
            return self._libraries[key]
        if name in self.absent:
            return None
        try:
            started = Library(name, self.settings, environment)
        except AbsentError as why:
            if name == "chainrule":
                raise SystemExit(f"bench: chainrule: {why}") from None
            self.absent[name] = str(why)
            print(f"{name}: {why}", flush=True)
            return None
        self.versions[name] = started.facts["version"]
        if "gpu" in started.facts:
            self.facts["gpu"] = started.facts["gpu"]
        for what in ("cuda", "cudnn"):
            if what in started.facts:
                self.versions[f"{name}'s {what}"] = str(started.facts[what])
        self._libraries[key] = started
        return started

    def measure(self, module: str, case: Case) -> dict[str, Any]:
        """Check and time one case; repeated while the machine's own speed moves."""
        asked = [name for name in LIBRARIES if name in ("chainrule", *self.settings.peers)]
        asked = [name for name in asked if name in case.legs]
        running = [lib for name in asked if (lib := self.library(name, case))]
        legs, refused = self._legs(module, case, running)
        if not any(library.name == "chainrule" for library, _ in legs):
            return self._record(case, {}, refused, None, None)
        counts = {
            leg: 1
            if case.whole
            else leg[0]
            .ask("calibrate", variant=leg[1], seconds=self.settings.seconds)
            .get("count", 1)
            for leg in legs
        }
        best: tuple[float, dict[str, timing.Summary], Probe, Probe] | None = None
        for _ in range(1 if self.settings.quick or case.whole else ATTEMPTS):
            before = self._probe(case)
            summaries = self._rounds(case, legs, counts, refused)
            after = self._probe(case)
            # Both are of one kind.
            moved = before.moved(after, case.bound)  # type: ignore[arg-type]
            if best is None or moved < best[0]:
                best = (moved, summaries, before, after)
            if moved <= STEADY:
                break
        assert best is not None
        for library in running:
            if library.lost:
                library.restart()
            library.ask("drop")
        return self._record(case, best[1], refused, best[2], best[3])

    def _probe(self, case: Case) -> Probe:
        if self.settings.device == "cuda":
            library = self.library("chainrule", case)
            assert library is not None
            if library.lost:
                library.restart()
            seconds = 0.002 if self.settings.quick else 0.01
            answer = library.ask("probe", seconds=seconds, tiny=self.settings.quick)
            if "error" in answer:
                raise SystemExit(f"bench: the probe of the GPU: {answer['error']}")
            self.facts["gpu"]["now"] = answer["now"]
            return gpu.Probe(**answer["probe"])
        isa = case.isa or self.facts["backend"]
        seconds = 0.002 if self.settings.quick else 0.015
        return probe.measure(isa, self.settings.threads, int(case.nbytes), seconds)

    def _legs(
        self, module: str, case: Case, running: list[Library]
    ) -> tuple[list[tuple[Library, str]], dict[str, str]]:
        """Return the legs whose results are right, and why the others are not there."""
        refused: dict[str, str] = {
            name: why for name, why in self.absent.items() if name in case.legs
        }
        reference = None
        if case.reference is not None:
            reference = case.reference(case.inputs(np.random.default_rng(SEED)))
        legs: list[tuple[Library, str]] = []
        for library in running:
            answer = self._setup(library, module, case)
            if "error" in answer:
                refused[library.name] = answer["error"]
            for variant in answer.get("variants", []):
                if "compile" in variant and not self.settings.compile:
                    continue
                name = f"{library.name} {variant}"
                refusal = self._refusal(library, variant, reference, case.tolerance)
                if refusal:
                    refused[name] = refusal
                    library.ask("forget", variant=variant)
                    print(f"  {case.name}: {name}: {refusal}", flush=True)
                else:
                    legs.append((library, variant))
                if library.lost:
                    library.restart()
                    self._setup(library, module, case)
                    for built in (v for lib, v in legs if lib is library):
                        library.ask("build", variant=built)
        return legs, refused

    def _setup(self, library: Library, module: str, case: Case) -> dict[str, Any]:
        quick = self.settings.quick
        return library.ask("setup", module=module, case=case.name, quick=quick, seed=SEED)

    def _refusal(
        self,
        library: Library,
        variant: str,
        reference: tuple[np.ndarray[Any, Any], ...] | None,
        tolerance: float,
    ) -> str:
        """Return why a leg's results will not do; empty where they are right."""
        path = Path(self._folder.name) / "result.npz"
        answer = library.ask("check", variant=variant, file=str(path))
        if "error" in answer:
            return str(answer["error"])
        with np.load(path) as results:
            arrays = tuple(results[key] for key in results.files)
        path.unlink(missing_ok=True)
        return self._wrong(arrays, reference, tolerance)

    @staticmethod
    def _wrong(
        arrays: tuple[np.ndarray[Any, Any], ...],
        reference: tuple[np.ndarray[Any, Any], ...] | None,
        tolerance: float,
    ) -> str:
        if reference is None:
            return ""
        try:
            distance = error(arrays, reference)
        except ValueError as wrong:
            return f"wrong: {wrong}"
        if distance > tolerance:
            return f"wrong: {distance:.1e} from float64, {tolerance:.0e} allowed"
        return ""

    def _rounds(
        self,
        case: Case,
        legs: list[tuple[Library, str]],
        counts: Mapping[tuple[Library, str], int],
        refused: dict[str, str],
    ) -> dict[str, timing.Summary]:
        """Time all legs in turn, round after round."""
        seconds: dict[str, list[float]] = {f"{lib.name} {variant}": [] for lib, variant in legs}
        rounds = self.settings.rounds
        if case.rounds is not None and not self.settings.quick:
            rounds = case.rounds
        for _ in range(rounds):
            for leg in legs:
                library, variant = leg
                name = f"{library.name} {variant}"
                if name in refused:
                    continue
                answer = library.ask(
                    "time", variant=variant, count=counts[leg], warm=not case.whole
                )
                if "error" in answer:
                    refused[name] = answer["error"]
                    print(f"  {case.name}: {name}: {answer['error']}", flush=True)
                else:
                    seconds[name].append(answer["seconds"])
        return {
            name: timing.Summary(tuple(times))
            for name, times in seconds.items()
            if times and name not in refused
        }

    def _record(
        self,
        case: Case,
        summaries: Mapping[str, timing.Summary],
        refused: Mapping[str, str],
        before: Probe | None,
        after: Probe | None,
    ) -> dict[str, Any]:
        """Return everything about a measured case, as it goes into the JSON."""
        noisy = None
        if before and after:
            noisy = before.moved(after, case.bound) > STEADY  # type: ignore[arg-type]
        return {
            "command": f"{self.settings.command} {case.name}",
            "machine": copy.deepcopy(self.facts),
            "versions": dict(self.versions),
            "environment": dict(case.environment.get("chainrule", {})),
            "flops": case.flops,
            "bytes": case.nbytes,
            "bound": case.bound,
            "noisy": noisy,
            "probes": [dataclasses.asdict(one) for one in (before, after) if one],
            "legs": {
                name: {
                    "median": summary.median,
                    "best": summary.best,
                    "spread": summary.spread,
                    "rounds": list(summary.rounds),
                }
                for name, summary in summaries.items()
            },
            "refused": dict(refused),
        }
