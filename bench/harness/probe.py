"""Probes of the CPU: multiply-adds and copied bytes per second, and cache-line latency."""

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
# The vector size in bytes, and compiler options that exclude instructions the backend does not use.
ISAS = {
    "scalar": (4, ("-march=x86-64", "-fno-tree-vectorize", "-fno-tree-slp-vectorize")),
    "sse2": (16, ("-march=x86-64",)),
    "avx2": (32, ("-march=native", "-mno-avx512f")),
    "avx512": (64, ("-march=native",)),
    "neon": (16, ("-march=native",)),
}


@dataclass(frozen=True)
class Probe:
    """The measured rates of a machine.

    ``gflops`` is the rate of multiply-adds on registers. ``gigabytes_per_second`` is the rate of a
    copy, bytes read plus bytes written. ``cache_line_ns`` is the time that a cache line takes to
    another thread and back; it is 0 on one thread.

    The last one shows on which cores a virtual machine's CPUs run, which can change within a
    minute. On an AMD EPYC it is 56 ns if they share an L3 cache and 330 ns if not. A step of LeNet
    then takes 2.1 ms instead of 1.55 ms, while the other two rates stay the same.
    """

    isa: str
    threads: int
    gflops: float
    gigabytes_per_second: float
    copy_bytes: int
    cache_line_ns: float = 0.0

    def relative_change(self, later: Probe, bound: str) -> float:
        """Return the relative difference of a later probe, for the rate that bounds a case."""
        before, after = self.rate(bound), later.rate(bound)
        return abs(after - before) / max(before, after)

    def rate(self, bound: str) -> float:
        return self.gflops if bound == "compute" else self.gigabytes_per_second


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "chainrule-bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="chainrule-bench-"))
    return folder


@cache
def load_probe(isa: str) -> ctypes.CDLL:
    """Return the probe for an instruction set, compiled once per source, options and machine."""
    width, flags = ISAS[isa]
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, "-O3", "-ffp-contract=fast", "-std=c++17", "-shared", "-fPIC", "-pthread"]
    command += [*flags, f"-DPROBE_BYTES={width}"]
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join([*command, platform.node()]).encode())
    path = cache_folder() / f"probe-{isa}-{key.hexdigest()[:16]}.so"
    if not path.exists():
        # Renamed at the end, so that another process never loads an incomplete file.
        new = path.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, str(SOURCE), "-o", str(new)], check=True)
        new.replace(path)
    probe = ctypes.CDLL(str(path))
    probe.probe_flops.restype = ctypes.c_int64
    probe.probe_multiply_add.restype = ctypes.c_float
    probe.probe_multiply_add.argtypes = [ctypes.c_int, ctypes.c_int64]
    probe.probe_copy.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
    ]
    probe.probe_cache_line.argtypes = [ctypes.c_int64]
    return probe


@cache
def _copy_buffer(number: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    # np.full writes to every page, so the system maps them before the first copy.
    return np.full(COPY_LIMIT // 2, number, np.uint8)


def measure(isa: str, threads: int, footprint: int, seconds: float = 0.015) -> Probe:
    """Return a probe: medians of nine slices of ``seconds`` each.

    ``footprint`` is the number of bytes that the case reads and writes. The copy has the same
    size, because a copy within a cache is faster than one in memory.
    """
    probe = load_probe(isa)
    bytes_per_copy = max(4096, min(footprint, COPY_LIMIT) // 2)

    def rate(call: timing.Call, amount: float) -> float:
        count = timing.calls_per_slice(call, seconds)
        return amount / median(timing.time_slice(call, count) for _ in range(9)) / 1e9

    # With so many iterations, the start of the threads takes less than 1 % of the time.
    iterations = 250_000
    multiply_add = partial(probe.probe_multiply_add, threads, iterations)
    target, source = (_copy_buffer(number).ctypes.data for number in (0, 1))
    repeats = max(1, 2**26 // bytes_per_copy)
    copy = partial(probe.probe_copy, threads, target, source, bytes_per_copy, repeats)
    # Fewer rounds if slices are short, because each can take a scheduler time slice on a busy CPU.
    rounds, cache_line_ns = 20_000 if seconds > 0.01 else 50, 0.0
    # On a single CPU two spinning threads would take a scheduler time slice per round.
    if threads > 1 and len(os.sched_getaffinity(0)) > 1:
        ping_pong = partial(probe.probe_cache_line, rounds)
        cache_line_ns = 1e9 * median(timing.time_slice(ping_pong, 1) for _ in range(3)) / rounds
    return Probe(
        isa,
        threads,
        rate(multiply_add, probe.probe_flops() * iterations * threads),
        rate(copy, 2 * bytes_per_copy * repeats),
        bytes_per_copy,
        cache_line_ns,
    )
