"""Run one target on inputs: replay a corpus, or fuzz with atheris. Each input has limits.

A target reads one input, which is the content of a file or a command line. A finding is an
exception that the documentation does not list, an error text without the path, more than 1 s of CPU
time, memory above the target's limit, or the end of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import io
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).resolve().parent / "corpus"
CPU_SECONDS = 1.0
MEBIBYTE = 1 << 20
# True in a process that fuzzes: only then is the code instrumented, which makes it slower.
FUZZING = Path(sys.argv[0]).name.startswith("fuzz_") and "--replay" not in sys.argv


class Finding(AssertionError):  # noqa: N818  # a result, not a failure of this program
    """A target broke a promise on one input."""


@dataclass(frozen=True)
class Target:
    """The check, the mutations and the seeds of one fuzzer.

    Parameters
    ----------
    name : str
        Name of the corpus folder.
    check : callable
        Run one input. Raise `Finding` if a promise is broken.
    mutate : callable (data, random) -> bytes
        Change an input in a way that keeps most of its structure valid.
    seeds : callable
        Return the first inputs by name.
    memory : callable
        Return the limit of the memory that an input may use, in bytes.
    longest : int
        Longest input, in bytes.
    """

    name: str
    check: Callable[[bytes], None]
    mutate: Callable[[bytes, random.Random], bytes]
    seeds: Callable[[], Mapping[str, bytes]]
    memory: Callable[[bytes], int]
    longest: int


_folders: list[Path] = []


def temporary_folder() -> Path:
    """Create a folder that `main` removes. It is in memory if there is a /dev/shm."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder = Path(tempfile.mkdtemp(prefix="chainrule-fuzz-", dir=memory))
    _folders.append(folder)
    return folder


class InputFile:
    """A file in a temporary folder, whose content is replaced for each input."""

    def __init__(self, name: str) -> None:
        self.path = temporary_folder() / name
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, data, 0)


class Meter:
    """Measure the peak of resident memory during a call, by resetting the kernel's counter."""

    def __init__(self) -> None:
        self._reset = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        # glibc keeps freed blocks and raises its threshold. A large block that is reused would not
        # count. M_MMAP_THRESHOLD is -3: with a fixed threshold such a block is returned at once.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(-3, MEBIBYTE)

    def start(self) -> None:
        os.pwrite(self._reset, b"5", 0)
        self._before = self._peak()
        self._started = time.process_time()

    def stop(self) -> tuple[float, int]:
        """Return CPU seconds and the growth of the peak in bytes."""
        return time.process_time() - self._started, self._peak() - self._before

    def _peak(self) -> int:
        text = os.pread(self._status, 4096, 0)
        return int(text.partition(b"VmHWM:")[2].split(maxsplit=1)[0]) * 1024


def expect_documented(error: Exception, names: Iterable[str]) -> None:
    """Raise `Finding` unless the error is documented and its text names the input."""
    if not isinstance(error, ValueError | OSError | MemoryError):
        raise Finding(f"undocumented {type(error).__name__}: {error}") from error
    if not any(name in str(error) for name in names):
        raise Finding(f"{type(error).__name__} without the path: {error}") from error


def run(target: Target, meter: Meter, data: bytes) -> None:
    """Run one input under its limits.

    Raises
    ------
    Finding
        If a promise is broken.
    """
    meter.start()
    target.check(data)
    seconds, grown = meter.stop()
    limit = target.memory(data)
    if seconds > CPU_SECONDS or grown > limit:
        # The process can also be slow or grow for another reason, such as a garbage collection.
        meter.start()
        target.check(data)
        seconds, grown = (min(pair) for pair in zip(meter.stop(), (seconds, grown), strict=True))
    if seconds > CPU_SECONDS:
        raise Finding(f"an input of {len(data)} bytes took {seconds:.1f} s of CPU time")
    if grown > limit:
        raise Finding(
            f"an input of {len(data)} bytes took {grown / MEBIBYTE:.0f} MiB, limit "
            f"{limit / MEBIBYTE:.0f} MiB"
        )


def inputs(target: Target) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each seed and each kept input."""
    yield from target.seeds().items()
    for path in sorted((CORPUS / target.name).glob("*")):
        yield path.name, path.read_bytes()


@contextlib.contextmanager
def instrumented(*packages: str) -> Iterator[None]:
    """Instrument the packages that are imported within, if this process fuzzes."""
    if not FUZZING:
        yield
        return
    import atheris

    # atheris prints the name of each module that it instruments.
    with (
        contextlib.redirect_stderr(io.StringIO()),
        atheris.instrument_imports(include=list(packages)),
    ):
        yield


def signature(error: BaseException) -> str:
    """Return the type of an error and the place of its cause, to tell findings apart."""
    cause = error.__cause__ or error
    frames = traceback.extract_tb(cause.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    first = str(error).split(":")[0]
    return f"{type(cause).__name__} {place} {first if cause is error else ''}"


def fuzz(target: Target, arguments: argparse.Namespace) -> None:
    """Fuzz until the limit of inputs or time is reached. libFuzzer then ends the process."""
    import atheris

    meter = Meter()
    seen: set[str] = set()
    artifacts = Path(arguments.artifacts).resolve()  # a target may change the folder
    artifacts.mkdir(parents=True, exist_ok=True)

    def test_one_input(data: bytes) -> None:
        try:
            run(target, meter, data)
        except Exception as error:
            if not arguments.keep_going:
                raise
            if (mark := signature(error)) not in seen:
                seen.add(mark)
                name = f"{target.name}-{hashlib.sha256(data).hexdigest()[:16]}"
                (artifacts / name).write_bytes(data)
                print(f"finding {len(seen)} in {artifacts / name}: {error}", flush=True)

    def custom_mutator(data: bytes, max_size: int, seed: int) -> bytes:
        source = random.Random(seed)
        if source.random() < 0.25:
            return bytes(atheris.Mutate(data, max_size))
        try:
            return target.mutate(bytes(data), source)[:max_size]
        except Exception:
            # The input has no structure left. An exception here would end libFuzzer without a text.
            return bytes(atheris.Mutate(data, max_size))

    work = Path(arguments.corpus).resolve()
    work.mkdir(parents=True, exist_ok=True)
    for name, data in inputs(target):
        if len(data) <= target.longest:
            (work / name).write_bytes(data)
    options = [
        f"-max_len={target.longest}",
        # Of the clock: a guard against a hang, also on a busy machine. `run` limits the CPU time.
        "-timeout=1200",
        "-report_slow_units=1200",
        "-rss_limit_mb=3000",
        "-print_final_stats=1",
        f"-artifact_prefix={artifacts}/{target.name}-",
        f"-verbosity={int(arguments.verbose)}",
    ]
    if arguments.runs:
        options.append(f"-runs={arguments.runs}")
    if arguments.seconds:
        options.append(f"-max_total_time={arguments.seconds}")
    if arguments.seed:
        options.append(f"-seed={arguments.seed}")
    atheris.Setup([sys.argv[0], *options, str(work)], test_one_input, custom_mutator=custom_mutator)
    atheris.Fuzz()


def main(target: Target) -> int:
    """Run the command line of a target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, help="number of inputs")
    parser.add_argument("--seconds", type=int, help="limit of the time")
    parser.add_argument("--seed", type=int, help="seed of the mutations")
    parser.add_argument("--corpus", help="folder that keeps new inputs")
    parser.add_argument("--artifacts", default="findings", help="folder for findings")
    parser.add_argument("--keep-going", action="store_true", help="list findings, do not stop")
    parser.add_argument("--verbose", action="store_true", help="show libFuzzer's progress")
    parser.add_argument(
        "--replay", nargs="*", metavar="FILE", help="run these files, or the corpus"
    )
    arguments = parser.parse_args()
    try:
        return (
            replay(target, arguments.replay)
            if arguments.replay is not None
            else (fuzz_in_child(target, arguments))
        )
    finally:
        for folder in _folders:
            shutil.rmtree(folder, ignore_errors=True)


def fuzz_in_child(target: Target, arguments: argparse.Namespace) -> int:
    """Run `fuzz` in a child, because libFuzzer ends its process without Python's clean-up."""
    arguments.corpus = arguments.corpus or temporary_folder()
    child = os.fork()
    if child == 0:
        fuzz(target, arguments)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def replay(target: Target, names: list[str]) -> int:
    """Run the named files, or the corpus. Return 1 if there is a finding."""
    meter = Meter()
    files = {name: Path(name).read_bytes() for name in names} or dict(inputs(target))
    findings = 0
    for name, data in files.items():
        try:
            run(target, meter, data)
        except Finding as error:
            findings += 1
            print(f"{name}: {error}")
    print(f"{len(files)} inputs, {findings} findings")
    return int(findings > 0)


# Values that reach the edges of checks, for JSON and for numbers in binary headers.
INTERESTING: tuple[Any, ...] = (
    0,
    1,
    -1,
    2,
    127,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    10**30,
    10**400,
    0.5,
    -0.0,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
    True,
    False,
    None,
    "",
    "same",
    "valid",
    "float32",
    "\0",
    "\ud800",
    "é",
    [],
    {},
    [[]],
    [1, 2],
    (0, 0),
    "x" * 300,
)


def mutate_json(value: Any, source: random.Random) -> Any:
    """Return a copy of a JSON value with one or two nodes changed."""
    root = [_copied(value)]
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        slots: list[tuple[Any, Any]] = []
        pending: list[Any] = [root]
        while pending and len(slots) < 2000:
            node = pending.pop()
            keys = list(node) if isinstance(node, dict) else range(len(node))
            for key in keys:
                slots.append((node, key))
                if isinstance(node[key], dict | list):
                    pending.append(node[key])
        owner, key = source.choice(slots)
        kind = source.randrange(9)
        if kind <= 2:
            owner[key] = source.choice(INTERESTING)
        elif kind == 3 and owner is not root:
            del owner[key]
        elif kind == 4:
            other, name = source.choice(slots)
            owner[key] = _copied(other[name]) if name in _keys(other) else None
        elif kind == 5 and isinstance(owner[key], int | float) and owner[key] == owner[key]:
            owner[key] += source.choice((1, -1, 0.5, -owner[key], owner[key]))
        elif kind == 6 and isinstance(owner, dict):
            owner[source.choice(("kind", "x", "", key, "version", "__metadata__"))] = owner.pop(key)
        elif kind == 7 and isinstance(owner, list) and owner is not root:
            owner[key:key] = [_copied(owner[key])] * source.choice((1, 2, 30))
        elif isinstance(owner[key], str) and owner[key]:
            text = owner[key]
            at = source.randrange(len(text))
            owner[key] = text[:at] + source.choice(("", "0", "\x7f", ".", text)) + text[at + 1 :]
        else:
            owner[key] = [owner[key]]
    return root[0]


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value


def _keys(node: Any) -> Any:
    return node if isinstance(node, dict) else range(len(node))


def mutate_bytes(data: bytes, source: random.Random) -> bytes:
    """Return a copy of some bytes with a few changed, removed, inserted or repeated."""
    out = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 3, 8))):
        at = source.randrange(len(out) + 1)
        kind = source.randrange(6)
        if kind == 0 and at < len(out):
            out[at] = source.randrange(256)
        elif kind == 1 and at < len(out):
            out[at] ^= 1 << source.randrange(8)
        elif kind == 2:
            del out[at : at + source.choice((1, 2, 4, 16, 200))]
        elif kind == 3:
            out[at:at] = source.randbytes(source.choice((1, 2, 4, 16)))
        elif kind == 4:
            out[at:at] = out[at : at + source.choice((1, 4, 32))]
        else:
            number = source.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
            order = source.choice(("big", "little"))
            out[at : at + 4] = number.to_bytes(4, order)
    return bytes(out)
