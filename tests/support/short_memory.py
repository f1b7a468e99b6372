"""Call functions of files with ever more memory: ``python short_memory.py FOLDER OPERATION``.

For each amount a child is forked, the free memory of its heap is filled, and the limit of its
address space is raised by that amount. Every call must return or raise a MemoryError with a text,
and must work when the limit is raised. A child that is ended by a signal fails the check.
"""

from __future__ import annotations

import functools
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from chainrule.training.history import Epoch, History

# In bytes. With less than the first, Python itself cannot raise an exception.
AMOUNTS = [int(8192 * 2.1**k) for k in range(13)]


def operations(folder: str) -> dict[str, Callable[[], object]]:
    """Return the functions by name, after a call of each: imports are not what is tested."""
    model, csv = os.path.join(folder, "m.safetensors"), os.path.join(folder, "h.csv")
    # Whole numbers of 3.2 MB of weights, which leave the heap when they are freed.
    net = cr.Sequential(cr.Linear(1000), input_shape=(800,))
    history = History([Epoch(1, 0.5, None, None, None, 0.1, 2.0)] * 1000)
    net.save(model)
    found: dict[str, Callable[[], object]] = {
        "save": lambda: net.save(model),
        "load": lambda: cr.load(model),
        "to_csv": lambda: history.to_csv(csv),
        "digits": cr.data.digits,
    }
    if os.environ.get("CHAINRULE_DATA"):
        found["mnist"] = lambda: cr.data.mnist(download=False)
    try:
        from PIL import Image
    except ImportError:
        return found
    from chainrule.data.digit_image import read_digit

    Image.init()
    digit = 255 - cr.data.digits()[1].images[3, :, :, 0].repeat(40, 0).repeat(40, 1)
    for kind in ("png", "jpeg", "bmp", "gif", "tiff", "webp"):
        path = os.path.join(folder, f"digit.{kind}")
        Image.fromarray(digit).save(path)
        found[kind] = functools.partial(read_digit, path)
    return found


def virtual_memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def outcome(function: Callable[[], object], amount: int) -> str:
    """Return what happened in this process: "ok", or the error's type and text."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    base = virtual_memory()
    held: list[Any] = []
    resource.setrlimit(resource.RLIMIT_AS, (base, hard))
    for size in (1 << 20, 1 << 16, 1 << 12, 1 << 9, 64):
        try:
            while True:
                held.append(np.empty(size, np.uint8))
        except MemoryError:
            continue
    resource.setrlimit(resource.RLIMIT_AS, (base + amount, hard))
    try:
        function()
        text = "ok"
    except MemoryError as error:
        text = f"MemoryError: {error}"
    except BaseException as error:
        text = f"FAULT {type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    held.clear()
    function()  # usable afterwards
    return "FAULT MemoryError without a text" if text == "MemoryError: " else text


def main(folder: str, name: str) -> None:
    found = operations(folder)
    if name not in found:
        print("absent")
        return
    found[name]()
    seen = set()
    for amount in AMOUNTS:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, outcome(found[name], amount).encode())
            finally:
                os._exit(0)
        os.close(writer)
        text = os.read(reader, 4096).decode()
        os.close(reader)
        _, status = os.waitpid(child, 0)
        if not text or text.startswith("FAULT"):
            raise AssertionError(f"{name} with {amount} bytes: {text or f'status {status}'}")
        seen.add(text.partition(":")[0])
    print(*sorted(seen))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
