"""Kill processes at random moments of a save: ``python killed_saves.py FOLDER COUNT SEED``.

Each child is forked from this process, so a kill takes milliseconds. Afterwards the file must be
that of a complete save, no older than the last one that had returned.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time

import numpy as np

import chainrule as cr


def save_forever(net: cr.Sequential, path: str, first: int, done: int) -> None:
    """Save ever larger values, and write each to the pipe ``done`` when its save has returned."""
    for value in itertools.count(first):
        net.parameter_vector = np.full(net.parameter_vector.size, value, np.float32)
        net.save(path)
        os.write(done, value.to_bytes(4, "little"))


def main(folder: str, count: int, seed: int) -> None:
    wait = random.Random(seed)
    path = os.path.join(folder, "net.safetensors")
    net = cr.Sequential(cr.Linear(200), cr.Linear(200), input_shape=(200,))
    net.parameter_vector = np.full(net.parameter_vector.size, 0, np.float32)
    net.save(path)  # imports what a save needs
    started = time.perf_counter()
    net.save(path)
    one_save = time.perf_counter() - started
    last = 0
    for _ in range(count):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                save_forever(net, path, last + 1, writer)
            finally:
                os._exit(1)
        os.close(writer)
        # A first save has returned: the process is running.
        acknowledged = os.read(reader, 4)
        time.sleep(wait.uniform(0, 2 * one_save))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while piece := os.read(reader, 4096):
            acknowledged += piece
        os.close(reader)
        returned = int.from_bytes(acknowledged[-4:], "little")
        values = np.unique(cr.load(path).parameter_vector)
        assert values.size == 1, f"a mixture of saves: {values}"
        last = int(values[0])
        assert last in (returned, returned + 1), f"{last} is stored, {returned} had returned"
    left = [name for name in os.listdir(folder) if name != "net.safetensors"]
    for name in left:
        os.utime(os.path.join(folder, name), (time.time() - 7200,) * 2)
    net.save(path)
    assert os.listdir(folder) == ["net.safetensors"], os.listdir(folder)
    # Each is from a kill between the creation of a temporary file and its renaming.
    print(f"{count} kills, {len(left)} of them while a file was written")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
