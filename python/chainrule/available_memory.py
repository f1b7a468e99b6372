"""The memory that is available, to report a network that is too large before it is allocated.

Linux overcommits memory: allocating an array of zeros never fails. The process is killed later,
without an exception, when pages are first written. Before a large allocation its size is therefore
compared with three limits: free memory of the kernel, the control groups of the process (a
container's limit), and its own resource limits. The environment variable ``CHAINRULE_MEMORY``
replaces them: the most memory that this process may hold ("64GiB", or a number of bytes), or
"unlimited".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

OVERRIDE = "CHAINRULE_MEMORY"
# In bytes. Reading the limits takes 0.1 ms, longer than allocating this much.
SMALL = 2**22
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}


class Available(NamedTuple):
    """Bytes that can still be allocated, and the source of this number."""

    nbytes: int
    source: str


def in_bytes(count: int) -> str:
    """Return a number of bytes in the largest unit not above it, such as "4.7 KiB".

    Examples
    --------
    >>> from chainrule.available_memory import in_bytes
    >>> in_bytes(1000), in_bytes(4800)
    ('1000 B', '4.7 KiB')
    """
    for unit, size in reversed(UNITS.items()):
        if unit and count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def require(error_prefix: str, nbytes: int, parts: str = "", more: str = "") -> None:
    """Raise MemoryError if ``nbytes`` do not fit.

    Parameters
    ----------
    error_prefix : str
        Start of the message, up to "needs".
    nbytes : int
    parts : str
        The parts of ``nbytes`` and their sizes, for the message.
    more : str
        " more" if another part is allocated already.

    Raises
    ------
    MemoryError
        The message contains the memory needed, the memory available, and the source of the latter.
    ValueError
        If the environment variable CHAINRULE_MEMORY is not a size.
    """
    if nbytes < SMALL and OVERRIDE not in os.environ:
        return
    limit = available()
    if limit is None or nbytes <= limit.nbytes:
        return
    raise MemoryError(
        f"{error_prefix} {in_bytes(nbytes)} of{more} memory{f' ({parts})' if parts else ''}, but "
        f"{in_bytes(limit.nbytes)} are available ({limit.source}). The environment variable "
        f'{OVERRIDE} replaces this limit: the most memory of the process, such as "64GiB", or '
        f'"unlimited"'
    )


def available(root: str | os.PathLike[str] = "/") -> Available | None:
    """Return the memory that can be allocated: the smallest of all limits.

    None means that no limit is known, or that the environment variable is "unlimited".

    Parameters
    ----------
    root : path
        Root of the file system whose ``proc`` and ``sys`` are read.
    """
    text = os.environ.get(OVERRIDE)
    if text is not None:
        limit, held = _override(text), _held(root)
        if limit is None:
            return None
        source = f"{OVERRIDE} is {in_bytes(limit)}, of which this process holds {in_bytes(held)}"
        return Available(max(0, limit - held), source)
    limits = [*_machine(root), *_groups(root), *_process(root)]
    return min(limits, default=None)


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
    """Return the resident memory of this process, in bytes."""
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
    """Yield the kernel's estimate without swapping, and its commit limit if overcommit is off."""
    table = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _text(root, "proc/meminfo"), re.MULTILINE))
    if "MemAvailable" in table:
        yield Available(int(table["MemAvailable"]) * 1024, "MemAvailable of /proc/meminfo")
    strict = _number(root, "proc/sys/vm/overcommit_memory") == 2
    if strict and {"CommitLimit", "Committed_AS"} <= table.keys():
        left = int(table["CommitLimit"]) - int(table["Committed_AS"])
        yield Available(max(0, left * 1024), "CommitLimit of /proc/meminfo")


class _Group(NamedTuple):
    """Folder and file names of the memory controller, by version of control groups."""

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
    """Yield the memory left by the control group of this process and by each of its ancestors."""
    for line in _text(root, "proc/self/cgroup").splitlines():
        _, controllers, own = line.split(":", 2)
        group = _GROUPS.get("memory" if "memory" in controllers.split(",") else controllers)
        if group is None:
            continue
        # In a container the path may be the host's while the mount is this group's own folder.
        # Paths that do not exist are skipped.
        folders = [name for name in own.split("/") if name]
        for depth in range(len(folders), -1, -1):
            path = os.path.join(root, group.mount, *folders[:depth])
            limit, used = _number(path, group.limit), _number(path, group.used)
            if limit is not None and used is not None:
                # Cached files count as used, but the kernel drops them when memory is short.
                stat = dict(re.findall(r"^(\w+) (\d+)$", _text(path, "memory.stat"), re.MULTILINE))
                left = limit - used + int(stat.get(group.cached, 0))
                yield Available(max(0, left), f"{group.limit} of the control group")


def _process(root: str | os.PathLike[str]) -> Iterator[Available]:
    """Yield the address space that ``ulimit -v`` leaves."""
    if resource is None:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _text(root, "proc/self/statm").split()
    if limit != resource.RLIM_INFINITY and pages:
        left = limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")
        yield Available(max(0, left), "the limit of the address space, ulimit -v")
