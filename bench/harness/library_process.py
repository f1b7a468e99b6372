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

# Seconds until an answer must be there. A kernel on a GPU may never end.
ANSWER_TIMEOUT = {"cpu": None, "cuda": 180.0}


@dataclass(frozen=True)
class Settings:
    """The settings of a measurement.

    ``pythons`` has interpreters by library, ``seconds`` is the duration of a timing slice, and
    ``command`` reproduces the measurement.
    """

    threads: int
    peers: tuple[str, ...]
    pythons: Mapping[str, str]
    rounds: int = 9
    seconds: float = 0.1
    quick: bool = False
    compile: bool = True
    command: str = ""
    device: str = "cpu"


class UnavailableError(Exception):
    """A library that its interpreter cannot import."""


class LibraryProcess:
    """The process of one library, with one set of environment variables."""

    def __init__(self, name: str, settings: Settings, environment: Mapping[str, str]) -> None:
        self.name, self._settings, self._environment = name, settings, environment
        self.start()

    def start(self) -> None:
        settings, threads = self._settings, str(self._settings.threads)
        self.broken = False
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
                # PyTorch's option for transparent huge pages, which chainrule always requests.
                "THP_MEM_ALLOC_ENABLE": "1",
                "TF_CPP_MIN_LOG_LEVEL": "3",
                **self._environment,
            },
        )
        answer = self.request("load_library")
        if "error" in answer:
            self.close()
            missing = "ModuleNotFoundError" in answer["error"]
            raise UnavailableError("not installed" if missing else answer["error"])
        self.info = answer

    def request(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the worker and return its answer.

        On a GPU an error can invalidate the CUDA context; `broken` is then True.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        on_gpu, line = self._settings.device == "cuda", ""
        try:
            self._process.stdin.write(json.dumps({"method": method, **arguments}) + "\n")
            self._process.stdin.flush()
            if self._has_answer():
                line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            error = f"the process of {self.name} ended during {method!r}: see the output above"
            if not on_gpu:
                raise RuntimeError(error)
            self.broken = True
            return {"error": error}
        answer: dict[str, Any] = json.loads(line)
        if on_gpu and "cuda" in answer.get("error", "").lower():
            self.broken = True
        return answer

    def _has_answer(self) -> bool:
        """Wait for an answer. If the time limit passes, kill the process and return False."""
        assert self._process.stdout is not None
        timeout = ANSWER_TIMEOUT[self._settings.device]
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        if not ready:
            self._process.kill()
        return bool(ready)

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if self.broken:
            self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.close()
        self.start()
