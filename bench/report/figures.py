"""What the seconds of a measured case amount to: rates, shares of the probe, ratios to peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

from bench.harness.timing import quartiles

Record = Mapping[str, Any]


def ours(record: Record) -> tuple[str, Mapping[str, Any]] | None:
    """Return chainrule's fastest leg."""
    return fastest(record, "chainrule")


def fastest(record: Record, *libraries: str) -> tuple[str, Mapping[str, Any]] | None:
    """Return the leg of these libraries with the least median; of all peers if none is named."""
    legs = {
        name: leg
        for name, leg in record["legs"].items()
        if (name.split()[0] in libraries if libraries else not name.startswith("chainrule "))
    }
    if not legs:
        return None
    name = min(legs, key=lambda one: float(legs[one]["median"]))
    return name, legs[name]


def roof(record: Record, bound: str | None = None) -> float:
    """Return the mean of the probes around a case, in flops or bytes a second."""
    key = "gflops" if (bound or record["bound"]) == "compute" else "gigabytes"
    return mean(float(one[key]) for one in record["probes"]) * 1e9


def rate(record: Record, seconds: float) -> float:
    """Return what a leg does a second: flops or bytes, whichever bounds the case."""
    work = record["flops"] if record["bound"] == "compute" else record["bytes"]
    return float(work) / seconds


@dataclass(frozen=True)
class Ratio:
    """A peer's seconds over ours: of the medians, and the quartiles of the rounds' own ratios."""

    peer: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}x ({self.low:.2f}-{self.high:.2f})"


def ratio(record: Record, peer: str | None = None) -> Ratio | None:
    """Return the ratio to the fastest peer, or to a named leg."""
    mine = ours(record)
    if peer is None:
        other = fastest(record)
    else:
        other = (peer, record["legs"][peer]) if peer in record["legs"] else None
    if mine is None or other is None:
        return None
    pairs = zip(other[1]["rounds"], mine[1]["rounds"], strict=False)
    low, high = quartiles([theirs / own for theirs, own in pairs])
    return Ratio(other[0], float(other[1]["median"]) / float(mine[1]["median"]), low, high)


def time_text(seconds: float) -> str:
    """Return seconds with three digits in a unit that suits them."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def lines(name: str, record: Record) -> list[str]:
    """Return what is printed about a case: a line a leg, the ratio, the reproducer."""
    unit = "GFLOP/s" if record["bound"] == "compute" else "GB/s"
    head = name + ("  NOISY: the probe moved by more than 3 %" if record["noisy"] else "")
    crossings = [one["crossing"] for one in record["probes"] if one.get("crossing")]
    if crossings:
        head += f"  (between the CPUs: {min(crossings):.0f} to {max(crossings):.0f} ns)"
    out = [head]
    mine = ours(record)
    legs = sorted(record["legs"].items(), key=lambda item: float(item[1]["median"]))
    for leg, one in legs:
        line = f"  {leg:36} {time_text(one['median']):>9}  min {time_text(one['best']):>9}"
        line += f"  spread {one['spread']:5.1%}"
        if record["flops"]:
            share = rate(record, one["median"]) / roof(record)
            line += f"  {rate(record, one['median']) / 1e9:7.1f} {unit}  {share:6.1%} of the probe"
        if mine and leg == mine[0] and (compared := ratio(record)):
            line += f"  {compared} of {compared.peer}"
        out.append(line)
    out += [f"  {leg:36} {why}" for leg, why in record["refused"].items()]
    out.append(f"  $ {record['command']}")
    return out
