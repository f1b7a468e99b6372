"""Programs: operations recorded once and replayed as one call."""

from __future__ import annotations

import chainrule._core as _core

__all__ = ["Program"]


class Program(_core.Program):
    """A recorded sequence of operations on fixed arrays.

    Inside a ``with`` block, the calling thread's operations run and are recorded. ``run()`` repeats
    them on the same arrays as one call, without a Python object per operation. The kernels are the
    same as in eager calls, so the results are equal bit for bit. ``len(program)`` is the number of
    recorded operations.

    Values that change between runs are read from memory at each run. These are the elements of all
    arrays, and three parameters if they are arrays without dimensions: ``learning_rate`` of
    `ops.sgd` and `ops.adam` (float64), ``step`` of `ops.adam` (uint64) and ``offset`` of
    `ops.dropout` (uint64). NumPy cannot ``resize`` the arrays while the program exists. No other
    thread may change them during a run.

    During a run, subnormal numbers are flushed to zero. The caller's floating-point mode is
    restored after it. If runs take at most 5 ms, a program tries fewer threads than
    `set_num_threads` allows from time to time and uses the fastest number: fewer can be faster if
    CPUs share no cache.

    On a GPU, a program is a captured CUDA graph.

    Raises
    ------
    ValueError
        While recording, if an argument would need a copy, because a run could not see it change. At
        a run, if labels, indices or argmax values have become out of range.
    KeyboardInterrupt
        Within about 250 ms of Ctrl-C, if it runs on the CPU. What the program writes is then
        undefined until a run ends. So are arrays that it updates, such as those of `ops.sgd`.
    RuntimeError
        If it is recorded twice or within another recording. If it runs before it is recorded, while
        the calling thread records, or in two threads at once.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import Program, ops
    >>> x, y = np.array([-1.0, 2.0]), np.empty(2)
    >>> with Program() as program:
    ...     _ = ops.relu(x, out=y)
    >>> x[...] = 3.0, -4.0
    >>> program.run()
    >>> y
    array([3., 0.])
    """
