"""Probes of the machine: multiply-adds and bytes copied a second on given threads, and the way
between two of them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median

import numpy as np

from bench.harness import timing

SOURCE = Path(__file__).with_name("probe.cpp")
COPY_LIMIT = 256 * 2**20
ISAS = {
    # The vector's bytes, and what keeps the compiler from instructions that the backend lacks.
    "scalar": (4, ("-march=x86-64", "-fno-tree-vectorize", "-fno-tree-slp-vectorize")),
    "sse2": (16, ("-march=x86-64",)),
    "avx2": (32, ("-march=native", "-mno-avx512f")),
    "avx512": (64, ("-march=native",)),
    "neon": (16, ("-march=native",)),
}


@dataclass(frozen=True)
class Probe:
    """What the machine gave: GFLOP/s on registers; GB/s of a copy, bytes read plus written; and the
    nanoseconds a cache line takes to another thread and back, 0 where there is none.

    The last tells the places of a virtual machine's CPUs apart, which may change by the minute: on
    an AMD EPYC 56 ns where they share a cache, 330 where they do not. Then a step of LeNet takes
    2.1 ms instead of 1.55, while the other two figures stay the same.
    """

    isa: str
    threads: int
    gflops: float
    gigabytes: float
    copied: int
    crossing: float = 0.0

    def moved(self, later: Probe, bound: str) -> float:
        """Return by what share the figure that bounds a case differs in a later probe."""
        before, after = self.roof(bound), later.roof(bound)
        return abs(after - before) / max(before, after)

    def roof(self, bound: str) -> float:
        return self.gflops if bound == "compute" else self.gigabytes


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "chainrule-bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="chainrule-bench-"))
    return folder


@cache
def library(isa: str) -> ctypes.CDLL:
    """Return the probe compiled for one instruction set; compiled once per source and machine."""
    width, flags = ISAS[isa]
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, "-O3", "-ffp-contract=fast", "-std=c++17", "-shared", "-fPIC", "-pthread"]
    command += [*flags, f"-DPROBE_BYTES={width}"]
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join([*command, platform.node()]).encode())
    built = cache_folder() / f"probe-{isa}-{key.hexdigest()[:16]}.so"
    if not built.exists():
        # Under another name first: another process may be looking for it.
        new = built.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, str(SOURCE), "-o", str(new)], check=True)
        new.replace(built)
    loaded = ctypes.CDLL(str(built))
    loaded.probe_flops.restype = ctypes.c_int64
    loaded.probe_multiply_add.restype = ctypes.c_float
    loaded.probe_multiply_add.argtypes = [ctypes.c_int, ctypes.c_int64]
    loaded.probe_copy.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
    ]
    loaded.probe_crossing.argtypes = [ctypes.c_int64]
    return loaded


@cache
def _buffer(which: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    # Written, so that every page is there before the first copy.
    return np.full(COPY_LIMIT // 2, which, np.uint8)


def measure(isa: str, threads: int, footprint: int, seconds: float = 0.015) -> Probe:
    """Probe both; the median of nine slices.

    ``footprint`` is the bytes that the case reads and writes: a copy of as many bytes, because one
    that fits the cache is faster than memory.
    """
    probe = library(isa)
    bytes_a_copy = max(4096, min(footprint, COPY_LIMIT) // 2)

    def rate(call: timing.Call, amount: float) -> float:
        count = timing.calls_in(call, seconds)
        return amount / median(timing.slice_of(call, count) for _ in range(9)) / 1e9

    # Long enough that starting the threads is below a hundredth.
    iterations = 250_000
    add = partial(probe.probe_multiply_add, threads, iterations)
    to, source = (_buffer(which).ctypes.data for which in (0, 1))
    repeats = max(1, 2**26 // bytes_a_copy)
    copy = partial(probe.probe_copy, threads, to, source, bytes_a_copy, repeats)
    rounds, crossing = 20_000, 0.0
    # Two threads that watch each other on one CPU would take a time slice a round.
    if threads > 1 and len(os.sched_getaffinity(0)) > 1:
        hand_over = partial(probe.probe_crossing, rounds)
        crossing = 1e9 * median(timing.slice_of(hand_over, 1) for _ in range(3)) / rounds
    return Probe(
        isa,
        threads,
        rate(add, probe.probe_flops() * iterations * threads),
        rate(copy, 2 * bytes_a_copy * repeats),
        bytes_a_copy,
        crossing,
    )
