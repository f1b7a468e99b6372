"""Programs: operations recorded once and replayed as one call."""

from __future__ import annotations

import chainrule._core as _core

__all__ = ["Program"]


class Program(_core.Program):
    """A sequence of operations on fixed arrays.

    Recording runs the operations and notes them; ``run()`` repeats them on the same arrays, as one
    call without a Python object per operation. They are the same kernels, so the bits agree::

        with Program() as step:
            ops.linear(x, weight, bias, activation="relu", out=y)
            ...
        x[...] = the next batch
        step.run()

    What changes from run to run is read from memory: the arrays themselves, and for the
    ``learning_rate`` of `ops.sgd` and the ``offset`` of `ops.dropout` a NumPy array of no
    dimensions (float64 and uint64). While it runs, subnormal numbers are flushed to zero; the
    caller's floating-point mode is restored. One that runs often and is short (up to 5 ms) tries
    now and then whether fewer threads than `set_num_threads` allows are faster, as they are where
    two CPUs share no cache. ``len(program)`` is the number of operations.

    The arrays must keep their memory (no ``resize``), and no other thread may change them while
    the program runs.

    Raises
    ------
    ValueError
        While recording, if an argument would need a copy: a replay could not see it change. When
        run, if labels or indices that were changed since are out of range.
    RuntimeError
        If recorded twice or within another recording, if run before it is recorded, while the
        thread records, or by two threads at once.
    """
