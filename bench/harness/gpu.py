"""Information about the GPU, and probes of it: copied bytes and multiply-adds per second.

The copy is within GPU memory and larger than the cache. The arithmetic peak is calculated from the
number of multiprocessors and their highest clock, not measured. No card holds that clock under
load. A product of fixed size shows whether the card's speed changes between two probes.
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

COPY_BYTES = 256 * 2**20
# The values of CUdevice_attribute in cuda.h.
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
    """The peak in GFLOP/s and its source, and two measured rates.

    ``gigabytes_per_second`` is that of a copy, bytes read plus bytes written. ``matmul_gflops`` is
    the rate of chainrule's product of two square matrices.
    """

    peak_source: str
    gflops: float
    gigabytes_per_second: float
    matmul_gflops: float
    copy_bytes: int

    def relative_change(self, later: Probe, bound: str) -> float:
        """Return the relative difference of a later probe, for the rate that bounds a case."""
        before, after = self.measured_rate(bound), later.measured_rate(bound)
        return abs(after - before) / max(before, after)

    def measured_rate(self, bound: str) -> float:
        return self.matmul_gflops if bound == "compute" else self.gigabytes_per_second


@cache
def attributes() -> dict[str, int]:
    """Return the driver's attributes of the GPU; an empty dict if there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {}
    if driver.cuInit(0):
        return {}
    values, value = {}, ctypes.c_int()
    for name, number in ATTRIBUTES.items():
        if driver.cuDeviceGetAttribute(ctypes.byref(value), number, 0) == 0:
            values[name] = value.value
    return values


def peak_gflops() -> float:
    """Return the multiply-add rate of all lanes at the highest clock, in GFLOP/s; 0 if unknown."""
    gpu = attributes()
    if not gpu:
        return 0.0
    lanes = 64 if (gpu["major"], gpu["minor"]) == (8, 0) else 128
    return 2.0 * lanes * gpu["multiprocessors"] * gpu["clock_khz"] / 1e6


def nvidia_smi(query: str) -> str:
    """Return nvidia-smi's answer to a query; an empty string if it cannot run."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def info() -> dict[str, Any]:
    """Return the name, the driver and the attributes of the GPU in use."""
    from chainrule import cuda

    description = cuda.description()
    return {
        "name": nvidia_smi("name") or description.partition(",")[0],
        "description": description,
        "driver": nvidia_smi("driver_version"),
        **attributes(),
        "power_limit": nvidia_smi("power.limit"),
    }


def state() -> str:
    """Return the current clocks, power and temperature of the GPU."""
    return nvidia_smi("clocks.sm,clocks.mem,power.draw,temperature.gpu")


def measure(seconds: float, tiny: bool) -> Probe:
    """Return a probe of the GPU: medians of five slices of ``seconds`` each.

    Requires chainrule. ``tiny`` probes are for the emulation of a GPU on the CPU.
    """
    from chainrule import cuda, devices, ops

    def rate(call: timing.Call, amount: float) -> float:
        count = timing.calls_per_slice(call, seconds, cuda.synchronize)
        slices = (timing.time_slice(call, count, cuda.synchronize) for _ in range(5))
        return amount / median(slices) / 1e9

    copy_bytes = 2**20 if tiny else COPY_BYTES
    target, source = cuda.zeros(copy_bytes, np.uint8), cuda.zeros(copy_bytes, np.uint8)
    copy_rate = rate(lambda: target.fill(source), 2 * copy_bytes)
    n = 32 if tiny else 2048
    random = np.random.default_rng(0)
    matrices = [random.standard_normal((n, n), dtype=np.float32) for _ in range(3)]
    a, b, out = (devices.to_device("cuda", matrix) for matrix in matrices)
    matmul_rate = rate(lambda: ops.matmul(a, b, out=out), 2.0 * n**3)
    peak = peak_gflops()
    peak_source = "lanes x highest clock" if peak else "chainrule's product"
    return Probe(peak_source, peak or matmul_rate, copy_rate, matmul_rate, copy_bytes)
