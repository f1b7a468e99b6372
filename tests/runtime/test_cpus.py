"""The number of threads at import: OMP_NUM_THREADS, and the CPU quotas of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import chainrule
import chainrule._core as _core
from run_subprocess import python_output

THREADS = "import chainrule; print(chainrule.get_num_threads())"


def v2(path: str, text: str) -> dict[str, str]:
    return {f"sys/fs/cgroup/{path}cpu.max": text}


def v1(path: str, quota: int, period: int = 100_000) -> dict[str, str]:
    base = f"sys/fs/cgroup/{path}"
    return {
        f"{base}cpu.cfs_quota_us": f"{quota}\n",
        f"{base}cpu.cfs_period_us": f"{period}\n",
    }


@pytest.mark.parametrize(
    ("groups", "files", "cpus"),
    [
        ("", {}, 0),
        ("0::/\n", {}, 0),
        ("0::/\n", v2("", "max 100000\n"), 0),
        ("0::/\n", v2("", "300000 100000\n"), 3),
        # Rounded up, and at least 1.
        ("0::/\n", v2("", "300001 100000\n"), 4),
        ("0::/\n", v2("", "1000 100000\n"), 1),
        ("0::/\n", v2("", "9223372036854775807 1\n"), 1 << 20),
        # The smallest quota of the group and of all groups above it.
        ("0::/a/b\n", {**v2("a/b/", "max 100000\n"), **v2("a/", "200000 100000\n")}, 2),
        ("0::/a/b\n", {**v2("a/b/", "500000 50000\n"), **v2("", "700000 100000\n")}, 7),
        ("0::/a/b\n", {**v2("a/b/", "50000 50000\n"), **v2("", "700000 100000\n")}, 1),
        # A container that sees the host's path, but mounts its own group.
        ("0::/docker/abc\n", v2("", "400000 100000\n"), 4),
        ("0::/a\n", v2("b/", "100000 100000\n"), 0),
        # Version 1, alone and beside an empty version 2, by both names of the folder.
        ("4:cpu,cpuacct:/a\n0::/\n", v1("cpu/a/", 250_000), 3),
        ("4:cpuacct,cpu:/a\n0::/\n", v1("cpuacct,cpu/a/", 250_000), 3),
        ("4:cpu:/a\n", {**v1("cpu/a/", -1), **v1("cpu/", 600_000)}, 6),
        ("4:cpu:/a\n", v1("cpu/a/", -1), 0),
        ("4:cpuset,cpuacct:/a\n", v1("cpuset,cpuacct/a/", 100_000), 0),
        # Damaged files count as no quota.
        ("0::/\n", v2("", ""), 0),
        ("0::/\n", v2("", "-5 0\n"), 0),
        ("0:/\n::\nx\n0::\n0::a\n", v2("", "300000 100000\n"), 0),
        ("0::/" + "a/" * 3000 + "\n", v2("", "300000 100000\n"), 0),
    ],
)
def test_quota_of_the_control_groups(
    groups: str, files: dict[str, str], cpus: int, tmp_path: Path
) -> None:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _core.cgroup_cpus(str(tmp_path)) == cpus


def test_the_quota_of_this_machine() -> None:
    quota = _core.cgroup_cpus()
    assert quota >= 0
    assert chainrule.info()["cpus"] <= (quota or os.cpu_count() or 1)


def test_omp_num_threads_is_the_default() -> None:
    cpus = chainrule.info()["cpus"]
    assert python_output(THREADS, OMP_NUM_THREADS="1") == "1"
    assert python_output(THREADS, OMP_NUM_THREADS=" 1 , 4,2") == "1"
    assert python_output(THREADS, OMP_NUM_THREADS="100000") == str(cpus)
    assert python_output(THREADS, OMP_NUM_THREADS="1", CHAINRULE_NUM_THREADS="3") == "3"
    assert python_output(THREADS, OMP_NUM_THREADS="1", CHAINRULE_NUM_THREADS="") == "1"


@pytest.mark.parametrize("text", ["", "0", "-1", "one", "1x", " ", ","])
def test_an_invalid_omp_num_threads_counts_as_unset(text: str) -> None:
    wanted = str(chainrule.info()["cpus"])
    assert python_output(THREADS, OMP_NUM_THREADS=text) == wanted
