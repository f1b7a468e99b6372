"""How much memory a network needs and how much there is, so that too much is refused beforehand.

Linux promises memory that it does not have: an array of zeros never fails, and what ends the
process later, when pages are first written to, is no exception. So before anything large is
allocated, its size is compared with what the kernel, the process's control groups (a container's
limit) and its own limits leave. The environment variable ``CHAINRULE_MEMORY`` overrules them: the
most memory that this process may hold ("64GiB", or a number of bytes), or "unlimited".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

OVERRIDE = "CHAINRULE_MEMORY"
# Asking takes a tenth of a millisecond, more than allocating this much.
SMALL = 2**22
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}


class Available(NamedTuple):
    """Bytes that can still be allocated, and who says so."""

    nbytes: int
    source: str


def in_bytes(count: int) -> str:
    """A number of bytes in the largest unit that it fills, as "4.7 KiB"."""
    for unit, size in reversed(UNITS.items()):
        if unit and count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def require(what: str, nbytes: int, parts: str = "", more: str = "") -> None:
    """Refuse to allocate ``nbytes`` where they do not fit.

    Parameters
    ----------
    what : str, the message's beginning, up to "needs"
    nbytes : int
    parts : str, what they consist of
    more : str, " more" where a part is there already

    Raises
    ------
    MemoryError
        With the numbers: what is needed, what is available, and who says so.
    ValueError
        If the environment variable CHAINRULE_MEMORY is not a size.
    """
    if nbytes < SMALL and OVERRIDE not in os.environ:
        return
    there = available()
    if there is None or nbytes <= there.nbytes:
        return
    raise MemoryError(
        f"{what} {in_bytes(nbytes)} of{more} memory{f' ({parts})' if parts else ''}, but "
        f"{in_bytes(there.nbytes)} are available ({there.source}). The environment variable "
        f'{OVERRIDE} overrules this: the most that the process may hold, as "64GiB", or "unlimited"'
    )


def available(root: str | os.PathLike[str] = "/") -> Available | None:
    """Return how much can be allocated; None where nothing says, or nothing shall be asked.

    Parameters
    ----------
    root : path, of the file system whose ``proc`` and ``sys`` are read
    """
    text = os.environ.get(OVERRIDE)
    if text is not None:
        limit = _override(text)
        return None if limit is None else Available(max(0, limit - _held(root)), OVERRIDE)
    rooms = [*_machine(root), *_groups(root), *_process(root)]
    return min(rooms, default=None)


def _override(text: str) -> int | None:
    if text == "unlimited":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGTPE]iB|)", text.strip())
    if not found:
        raise ValueError(
            f'{OVERRIDE}: must be a number of bytes, a size such as "64GiB", or "unlimited", '
            f'got "{text}"'
        )
    return int(float(found[1]) * UNITS[found[2]])


def _held(root: str | os.PathLike[str]) -> int:
    """Resident memory of this process."""
    pages = _text(root, "proc/self/statm").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else 0


def _text(*path: str | os.PathLike[str]) -> str:
    try:
        with open(os.path.join(*path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(*path: str | os.PathLike[str]) -> int | None:
    text = _text(*path).strip()
    return int(text) if text.isdecimal() else None


def _machine(root: str | os.PathLike[str]) -> Iterator[Available]:
    """What the kernel thinks it can give without swapping; and its promise, where it keeps one."""
    table = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _text(root, "proc/meminfo"), re.MULTILINE))
    if "MemAvailable" in table:
        yield Available(int(table["MemAvailable"]) * 1024, "MemAvailable of /proc/meminfo")
    strict = _number(root, "proc/sys/vm/overcommit_memory") == 2
    if strict and {"CommitLimit", "Committed_AS"} <= table.keys():
        left = int(table["CommitLimit"]) - int(table["Committed_AS"])
        yield Available(max(0, left * 1024), "CommitLimit of /proc/meminfo")


class _Group(NamedTuple):
    """Where a version of control groups keeps the files on memory, and what they are called."""

    mount: str
    limit: str
    used: str
    cached: str


_GROUPS = {
    "": _Group("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": _Group(
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def _groups(root: str | os.PathLike[str]) -> Iterator[Available]:
    """What the control groups leave, this process's own and all above it."""
    for line in _text(root, "proc/self/cgroup").splitlines():
        _, controllers, own = line.split(":", 2)
        group = _GROUPS.get("memory" if "memory" in controllers.split(",") else controllers)
        if group is None:
            continue
        # In a container the path may be the host's, and the mount this group's own folder: what
        # does not exist says nothing.
        folders = [name for name in own.split("/") if name]
        for depth in range(len(folders), -1, -1):
            path = os.path.join(root, group.mount, *folders[:depth])
            limit, used = _number(path, group.limit), _number(path, group.used)
            if limit is not None and used is not None:
                # Cached files count as used, and are dropped when memory is wanted.
                stat = dict(re.findall(r"^(\w+) (\d+)$", _text(path, "memory.stat"), re.MULTILINE))
                left = limit - used + int(stat.get(group.cached, 0))
                yield Available(max(0, left), f"{group.limit} of the control group")


def _process(root: str | os.PathLike[str]) -> Iterator[Available]:
    """What ``ulimit -v`` leaves of the address space."""
    try:
        import resource
    except ImportError:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _text(root, "proc/self/statm").split()
    if limit != resource.RLIM_INFINITY and pages:
        left = limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")
        yield Available(max(0, left), "the limit of the address space, ulimit -v")
