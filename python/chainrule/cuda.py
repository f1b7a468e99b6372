"""Arrays on a GPU, and facts about the GPU in use.

The device of its arrays determines where an operation runs: `chainrule.ops` accepts arrays on the
GPU like NumPy arrays, and ``network.to("cuda")`` moves a network. Kernels run asynchronously. These
calls wait for them: `Array.numpy`, `synchronize`, and, outside a `Program`, the operations that
check labels, indices or argmax.

One GPU is used, number 0 of the process. Without a GPU this module can be imported, and `why_off`
gives the reason.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

import chainrule._core as _core

__all__ = [
    "Array",
    "array",
    "description",
    "empty",
    "is_available",
    "memory",
    "synchronize",
    "why_off",
    "zeros",
]

Array = _core.CudaArray
"""An array that owns memory on the GPU, without arithmetic.

It has ``shape``, ``dtype``, ``ndim``, ``size`` and ``nbytes`` as NumPy arrays have. The dtype is
float32, float64, uint8, uint16, int64 or uint64, and the memory is C-contiguous. ``numpy()``
returns a copy on the CPU, and ``copy()`` one on the GPU. ``fill(source)`` copies all elements from
an array on either device. ``part(offset, shape, dtype)`` returns a view of its bytes from
``offset`` on.

It supports DLPack and ``__cuda_array_interface__``, so PyTorch and CuPy share its memory without a
copy, as in ``torch.from_dlpack(a)``. The memory is freed with the last reference.
"""

DType: TypeAlias = npt.DTypeLike


def why_off() -> str:
    """Return the reason why no GPU is usable, in one line, or "" if one is usable.

    Examples
    --------
    >>> from chainrule import cuda
    >>> (cuda.why_off() == "") == cuda.is_available()
    True
    """
    return _core.cuda_why_off()


def is_available() -> bool:
    """Return True if a GPU is usable.

    Examples
    --------
    >>> from chainrule import cuda
    >>> if not cuda.is_available():
    ...     assert cuda.why_off()
    """
    return not why_off()


def description() -> str:
    """Return the name of the GPU in use and its driver, in one line.

    Raises
    ------
    RuntimeError
        If no GPU is usable.

    Examples
    --------
    >>> from chainrule import cuda
    >>> if cuda.is_available():
    ...     assert "\\n" not in cuda.description()
    """
    return _core.cuda_description()


def memory() -> tuple[int, int]:
    """Return the free and the total memory of the GPU.

    Returns
    -------
    free, total : int
        In bytes.

    Raises
    ------
    RuntimeError
        If no GPU is usable.

    Examples
    --------
    >>> from chainrule import cuda
    >>> if cuda.is_available():
    ...     free, total = cuda.memory()
    ...     assert free <= total
    """
    free, total = _core.cuda_memory()
    return free, total


def synchronize() -> None:
    """Wait until all kernels queued by this thread have finished.

    Raises
    ------
    RuntimeError
        If no GPU is usable, or if a kernel failed. The environment variable CHAINRULE_CUDA_SYNC=1
        makes every operation wait, so that the error names the operation.
    ValueError
        If a program run by this thread encountered labels, indices or argmax out of range.

    Examples
    --------
    >>> from chainrule import cuda
    >>> if cuda.is_available():
    ...     cuda.synchronize()
    """
    _core.cuda_synchronize()


def array(source: Any) -> Array:
    """Return a copy of a NumPy array on the GPU, or an array on the GPU without a copy.

    Parameters
    ----------
    source : numpy.ndarray, or object with ``__dlpack__`` or ``__cuda_array_interface__``
        Of float32, float64, uint8, uint16, int64 or uint64. It must be C-contiguous if it is on the
        GPU.

    Returns
    -------
    Array

    Raises
    ------
    RuntimeError
        If no GPU is usable. The message gives the reason.
    TypeError, ValueError
        If `source` is not an array, has another dtype, or is on the GPU and not C-contiguous.

    Examples
    --------
    >>> import numpy as np
    >>> from chainrule import cuda, ops
    >>> if cuda.is_available():
    ...     y = ops.relu(cuda.array(np.array([-1.0, 2.0])))
    ...     assert y.numpy().tolist() == [0.0, 2.0]
    """
    found: Array = _core.cuda_array(source)
    return found


def empty(shape: int | tuple[int, ...], dtype: DType = np.float32) -> Array:
    """Return an array on the GPU with undefined contents.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : float32, float64, uint8, uint16, int64 or uint64

    Returns
    -------
    Array

    Raises
    ------
    RuntimeError
        If no GPU is usable.
    TypeError, ValueError
        If `dtype` or `shape` is not supported.
    MemoryError
        If the memory of the GPU does not suffice.

    Examples
    --------
    >>> from chainrule import cuda
    >>> if cuda.is_available():
    ...     assert cuda.empty((2, 3)).nbytes == 24
    """
    return _core.cuda_empty(shape, dtype)


def zeros(shape: int | tuple[int, ...], dtype: DType = np.float32) -> Array:
    """Return an array of zeros on the GPU.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : float32, float64, uint8, uint16, int64 or uint64

    Returns
    -------
    Array

    Raises
    ------
    RuntimeError
        If no GPU is usable.
    TypeError, ValueError
        If `dtype` or `shape` is not supported.
    MemoryError
        If the memory of the GPU does not suffice.

    Examples
    --------
    >>> from chainrule import cuda
    >>> if cuda.is_available():
    ...     assert cuda.zeros(2).numpy().tolist() == [0.0, 0.0]
    """
    return _core.cuda_zeros(shape, dtype)


class StepBuffers(NamedTuple):
    """Arrays on the GPU of a training step, for `begin_step` and `end_step`.

    Those of an epoch have one element per instance or per step. Those without dimensions and those
    of the batch are written by the step.

    Parameters
    ----------
    order : int64 (instances,), instance indices in the order of the epoch
    rates : float64 (steps,), learning rates
    first_pass : uint64 (), dropout counter of the epoch's first step
    steps_done : uint64 (), optimizer steps before the epoch
    classes : int64 (instances,), or None
    batch_size : int, instances in a full step
    position : int64 (), number of the step, incremented by `end_step`
    indices : int64 (batch,), the instances of this step
    batch_classes : int64 (batch,), or None without ``classes``
    rate : float64 (), learning rate of this step
    pass_number : uint64 (), dropout counter of this step
    step_number : uint64 (), optimizer steps, this one included
    losses : float64 (steps,), sum of the losses per step
    correct : int64 (steps,), number of correct predictions per step
    stopped : int64 (), nonzero after a loss that is not finite
    """

    order: Any
    rates: Any
    first_pass: Any
    steps_done: Any
    classes: Any
    batch_size: int
    position: Any
    indices: Any
    batch_classes: Any
    rate: Any
    pass_number: Any
    step_number: Any
    losses: Any
    correct: Any
    stopped: Any


def begin_step(step: StepBuffers) -> None:
    """Select the batch, learning rate, dropout counter and step number of a training step."""
    _core.cuda_begin_step(
        order=step.order,
        rates=step.rates,
        first_pass=step.first_pass,
        steps_done=step.steps_done,
        classes=step.classes,
        batch_size=step.batch_size,
        position=step.position,
        indices=step.indices,
        batch_classes=step.batch_classes,
        rate=step.rate,
        pass_number=step.pass_number,
        step_number=step.step_number,
    )


def end_step(step: StepBuffers, losses: Any, output: Any) -> None:
    """Store the loss sum and the correct predictions of a step, and increment its number.

    Parameters
    ----------
    step : StepBuffers
    losses : array (batch,), the loss per instance
    output : array (batch, ...), the network's output
    """
    _core.cuda_end_step(
        losses=losses,
        output=output,
        classes=step.batch_classes,
        sums=step.losses,
        correct=step.correct,
        rate=step.rate,
        stopped=step.stopped,
        position=step.position,
    )


class Norm:
    """The Euclidean norm of a vector on the GPU, summed in an order that depends on its size only.

    Parameters
    ----------
    vector : array (n,), float32 or float64, on the GPU
    """

    def __init__(self, vector: Any) -> None:
        self.vector = vector
        self._partials = zeros(max(1, _core.cuda_norm_partials_size(vector.size)), np.float64)
        self._norm = zeros((), np.float64)

    def value(self) -> float:
        """Return the norm. It is not finite if an element is not."""
        _core.cuda_norm(self.vector, self._partials, self._norm)
        return float(self._norm.numpy())

    def clip(self, limit: float) -> None:
        """Scale the vector to the norm ``limit`` if its norm is larger and finite."""
        _core.cuda_norm(self.vector, self._partials, self._norm)
        _core.cuda_clip_to_norm(self.vector, limit, self._norm)
