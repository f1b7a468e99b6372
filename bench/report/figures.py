"""The figures of a measured case: rates, fractions of the probe, and ratios to peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

from bench.harness.timing import quartiles

Record = Mapping[str, Any]
# A variant's name, "LIBRARY VARIANT", and its times.
Timed = tuple[str, Mapping[str, Any]]


def own_best(record: Record) -> Timed | None:
    """Return chainrule's fastest variant; None if it has no result."""
    return fastest(record, "chainrule")


def fastest(record: Record, *libraries: str) -> Timed | None:
    """Return the variant with the smallest median among these libraries, by default all peers."""
    variants = {
        name: times
        for name, times in record["variants"].items()
        if (name.split()[0] in libraries if libraries else not name.startswith("chainrule "))
    }
    if not variants:
        return None
    name = min(variants, key=lambda name: float(variants[name]["median"]))
    return name, variants[name]


def probe_rate(record: Record, bound: str | None = None) -> float:
    """Return the mean of the probes before and after a case, in FLOP/s or bytes/s."""
    key = "gflops" if (bound or record["bound"]) == "compute" else "gigabytes_per_second"
    return mean(float(probe[key]) for probe in record["probes"]) * 1e9


def rate(record: Record, seconds: float) -> float:
    """Return the rate of a variant in FLOP/s or bytes/s, whichever bounds the case."""
    work = record["flops"] if record["bound"] == "compute" else record["bytes"]
    return float(work) / seconds


@dataclass(frozen=True)
class Ratio:
    """A peer's median time divided by ours, and the quartiles of the ratios of single rounds."""

    peer: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}x ({self.low:.2f}-{self.high:.2f})"


def ratio(record: Record, peer: str | None = None) -> Ratio | None:
    """Return the ratio to the fastest peer or to the named variant; None without a result."""
    own = own_best(record)
    if peer is None:
        other = fastest(record)
    else:
        other = (peer, record["variants"][peer]) if peer in record["variants"] else None
    if own is None or other is None:
        return None
    pairs = zip(other[1]["rounds"], own[1]["rounds"], strict=False)
    low, high = quartiles([peer_seconds / seconds for peer_seconds, seconds in pairs])
    return Ratio(other[0], float(other[1]["median"]) / float(own[1]["median"]), low, high)


def time_text(seconds: float) -> str:
    """Return a time with three digits and a suitable unit."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def report_lines(name: str, record: Record) -> list[str]:
    """Return the printed lines of a case: one per variant, the ratio, and the command."""
    unit = "GFLOP/s" if record["bound"] == "compute" else "GB/s"
    head = name + ("  NOISY: the probe changed by more than 3 %" if record["noisy"] else "")
    latencies = [probe["cache_line_ns"] for probe in record["probes"] if probe.get("cache_line_ns")]
    if latencies:
        low, high = min(latencies), max(latencies)
        head += f"  (cache-line round trip between CPUs: {low:.0f} to {high:.0f} ns)"
    lines = [head]
    own = own_best(record)
    variants = sorted(record["variants"].items(), key=lambda item: float(item[1]["median"]))
    for variant, times in variants:
        median, best = time_text(times["median"]), time_text(times["best"])
        line = f"  {variant:36} {median:>9}  min {best:>9}  spread {times['spread']:5.1%}"
        if record["flops"]:
            reached = rate(record, times["median"])
            fraction = reached / probe_rate(record)
            line += f"  {reached / 1e9:7.1f} {unit}  {fraction:6.1%} of the probe"
        if own and variant == own[0] and (compared := ratio(record)):
            line += f"  {compared} of {compared.peer}"
        lines.append(line)
    lines += [f"  {variant:36} {reason}" for variant, reason in record["excluded"].items()]
    lines.append(f"  $ {record['command']}")
    return lines
