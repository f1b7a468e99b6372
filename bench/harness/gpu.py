"""What a GPU is, and probes of it: bytes copied a second, and multiply-adds.

The copy is within the GPU's memory, larger than its cache. What the multiply-adds could be is not
measured but worked out, from the number of multiprocessors and their highest clock: a peak that no
card holds under load. Whether the card holds its own speed is seen by a product of fixed size.
"""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import numpy as np

from bench.harness import timing

COPIED = 256 * 2**20
# cuDeviceGetAttribute's numbers, as cuda.h has them.
ATTRIBUTES = {
    "clock_khz": 13,
    "multiprocessors": 16,
    "memory_clock_khz": 36,
    "memory_bus_bits": 37,
    "cache_bytes": 38,
    "major": 75,
    "minor": 76,
}


@dataclass(frozen=True)
class Probe:
    """What the GPU gave: GFLOP/s of its own peak (``peak`` says whence), GB/s of a copy, bytes read
    plus written, and GFLOP/s of chainrule's product of two square matrices."""

    peak: str
    gflops: float
    gigabytes: float
    product: float
    copied: int

    def moved(self, later: Probe, bound: str) -> float:
        """Return by what share the figure that bounds a case differs in a later probe."""
        before, after = self.steady(bound), later.steady(bound)
        return abs(after - before) / max(before, after)

    def steady(self, bound: str) -> float:
        return self.product if bound == "compute" else self.gigabytes


@cache
def attributes() -> dict[str, int]:
    """Return what the driver says of the card; nothing where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {}
    if driver.cuInit(0):
        return {}
    found, value = {}, ctypes.c_int()
    for name, number in ATTRIBUTES.items():
        if driver.cuDeviceGetAttribute(ctypes.byref(value), number, 0) == 0:
            found[name] = value.value
    return found


def peak() -> float:
    """Return the multiply-adds of all lanes at the highest clock, in GFLOP/s; 0 if unknown."""
    card = attributes()
    if not card:
        return 0.0
    lanes = 64 if (card["major"], card["minor"]) == (8, 0) else 128
    return 2.0 * lanes * card["multiprocessors"] * card["clock_khz"] / 1e6


def asked(question: str) -> str:
    """Return nvidia-smi's answer; empty where it is not there."""
    command = ["nvidia-smi", f"--query-gpu={question}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def facts() -> dict[str, Any]:
    """Return what is known of the GPU in use, its driver and the toolkit."""
    from chainrule import cuda

    description = cuda.description()
    found: dict[str, Any] = {"name": asked("name") or description.partition(",")[0]}
    found |= {"description": description, "driver": asked("driver_version"), **attributes()}
    found["power_limit"] = asked("power.limit")
    return found


def now() -> str:
    """Return the clocks of multiprocessors and memory, the power and the temperature."""
    return asked("clocks.sm,clocks.mem,power.draw,temperature.gpu")


def measure(seconds: float, tiny: bool) -> Probe:
    """Probe; the median of five slices. In a process that has chainrule. ``tiny`` is for trying
    this out on what is no GPU."""
    from chainrule import cuda, devices, ops

    def rate(call: timing.Call, amount: float) -> float:
        count = timing.calls_in(call, seconds, cuda.synchronize)
        slices = (timing.slice_of(call, count, cuda.synchronize) for _ in range(5))
        return amount / median(slices) / 1e9

    copied = 2**20 if tiny else COPIED
    to, source = cuda.zeros(copied, np.uint8), cuda.zeros(copied, np.uint8)
    copy = rate(lambda: to.fill(source), 2 * copied)
    n = 32 if tiny else 2048
    random = np.random.default_rng(0)
    matrices = [random.standard_normal((n, n), dtype=np.float32) for _ in range(3)]
    a, b, out = (devices.to_device("cuda", one) for one in matrices)
    product = rate(lambda: ops.matmul(a, b, out=out), 2.0 * n**3)
    best = peak()
    whence = "lanes x highest clock" if best else "chainrule's product"
    return Probe(whence, best or product, copy, product, copied)
