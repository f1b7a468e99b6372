"""The process of one library, in any interpreter that has it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# On a GPU no answer takes so long, unless a kernel never ends.
PATIENCE = {"cpu": None, "cuda": 180.0}


@dataclass(frozen=True)
class Settings:
    """How a measurement is made."""

    threads: int
    peers: tuple[str, ...]
    pythons: Mapping[str, str]
    rounds: int = 9
    seconds: float = 0.1
    quick: bool = False
    compile: bool = True
    command: str = ""
    device: str = "cpu"


class AbsentError(Exception):
    """A library that is not installed in its interpreter, or does not import."""


class Library:
    """The process of one library, in one environment."""

    def __init__(self, name: str, settings: Settings, environment: Mapping[str, str]) -> None:
        self.name, self._settings, self._environment = name, settings, environment
        self.start()

    def start(self) -> None:
        settings, threads = self._settings, str(self._settings.threads)
        self.lost = False
        self._process = subprocess.Popen(
            [
                settings.pythons.get(self.name, sys.executable),
                str(Path(__file__).with_name("worker.py")),
                self.name,
                "--threads",
                threads,
                "--device",
                settings.device,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "CHAINRULE_NUM_THREADS": threads,
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
                # PyTorch's own switch for large pages: the same memory that chainrule asks for.
                "THP_MEM_ALLOC_ENABLE": "1",
                "TF_CPP_MIN_LOG_LEVEL": "3",
                **self._environment,
            },
        )
        answer = self.ask("hello")
        if "error" in answer:
            self.close()
            missing = "ModuleNotFoundError" in answer["error"]
            raise AbsentError("not installed" if missing else answer["error"])
        self.facts = answer

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Ask for one thing. On a GPU an error may have spoiled the process: then it is lost."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        on_gpu, line = self._settings.device == "cuda", ""
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            if self._answers():
                line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            what = f"the process of {self.name} ended during {do!r}: see above"
            if not on_gpu:
                raise RuntimeError(what)
            self.lost = True
            return {"error": what}
        answer: dict[str, Any] = json.loads(line)
        if on_gpu and "cuda" in answer.get("error", "").lower():
            self.lost = True
        return answer

    def _answers(self) -> bool:
        """Wait for an answer; False where there is none for too long, and the process is ended."""
        assert self._process.stdout is not None
        patience = PATIENCE[self._settings.device]
        ready, _, _ = select.select([self._process.stdout], [], [], patience)
        if not ready:
            self._process.kill()
        return bool(ready)

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if self.lost:
            self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.close()
        self.start()
