"""The memory of training, computed from shapes, and the error raised if it does not fit."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np

import chainrule._core as _core

from .. import devices
from .._validation import both
from ..available_memory import in_bytes
from .architecture import Architecture, Extras, Mode
from .layers import Conv2d, Linear
from .parameters import Parameters


class HasState(Protocol):
    """The part of an optimizer that determines its memory."""

    @property
    def state_names(self) -> tuple[str, ...]:
        """One name per array, of the parameters' size, that is kept from step to step."""


@dataclass(frozen=True)
class Memory:
    """The memory that training holds, in bytes.

    Attributes
    ----------
    parameters, gradients : int
        The vectors of all weights and biases, padding included.
    optimizer_state : int
        The arrays that the optimizer keeps from step to step.
    activations : int
        All buffers of a step: inputs, outputs, gradients of the backward pass, targets.
    workspace : int
        Scratch memory of kernels.
    copies : int
        Copies that stopping rules keep.
    """

    parameters: int = 0
    gradients: int = 0
    optimizer_state: int = 0
    activations: int = 0
    workspace: int = 0
    copies: int = 0

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(getattr(self, item.name) for item in fields(self))

    def parts(self) -> str:
        """Return each part that is not 0, as "4.0 MiB parameters, 4.0 MiB gradients"."""
        sizes = [(getattr(self, item.name), item.name.replace("_", " ")) for item in fields(self)]
        return ", ".join(f"{in_bytes(size)} {name}" for size, name in sizes if size)


def step_workspace(architecture: Architecture, batch: int, device: str) -> int:
    """Return the largest workspace any kernel of a training step needs, in bytes.

    Kernels share one workspace. Its size depends on the backend and slightly on the number of
    threads.
    """
    windows = {
        fused.convolution: fused.window for fused in architecture.pooled_convolutions.values()
    }
    float64, on_gpu = architecture.dtype == np.float64, device != "cpu"
    first, largest = architecture.first_with_parameters, 0
    for i, (layer, shape) in enumerate(zip(architecture.layers, architecture.shapes, strict=False)):
        needed = 0
        try:
            if isinstance(layer, Linear):
                needed = _core.linear_workspace(batch, shape[0], layer.out, float64, on_gpu)
            elif isinstance(layer, Conv2d):
                window = both(windows[i]) if i in windows else None
                weight = layer.parameter_shapes(shape)["weight"]
                image = (batch, shape[0], shape[1], shape[2])
                needed = _core.conv2d_workspace(
                    image, weight, layer.stride, layer.padding, window, i > first, float64, on_gpu
                )
        except ValueError:
            pass  # A product of the sizes overflows 63 bits. Such a network cannot run.
        largest = max(largest, needed)
    return largest


def training_memory(
    architecture: Architecture,
    parameters: Parameters,
    batch: int,
    optimizer: HasState | None,
    logits: bool,
    extras: Extras,
) -> Memory:
    """Return the memory that training holds at a batch size. Nothing is allocated.

    Parameters
    ----------
    architecture : Architecture
    parameters : Parameters
        They need not be allocated.
    batch : int
        Instances per step.
    optimizer : Optimizer
        None means no state.
    logits : bool
        Whether the loss includes a final softmax.
    extras : mapping of name -> (shape of one instance, dtype)
        Buffers of a step in addition to the network's own, as `architecture.step_extras` returns.
    """
    vector = parameters.weights.nbytes
    mode = Mode(backward=True, dropout=True, logits=logits)
    return Memory(
        parameters=vector,
        gradients=vector,
        optimizer_state=vector * len(optimizer.state_names) if optimizer is not None else 0,
        activations=architecture.layout(batch, mode, extras).nbytes,
        # A program has its own workspace, in addition to that of the thread that recorded it.
        workspace=2 * step_workspace(architecture, batch, parameters.device),
    )


def require_training(
    architecture: Architecture,
    parameters: Parameters,
    batch: int,
    optimizer: HasState,
    logits: bool,
    extras: Extras,
    copies: int,
) -> None:
    """Raise MemoryError if training does not fit, before any of it is allocated.

    Parameters
    ----------
    copies : int
        Bytes that stopping rules keep. The other parameters are those of `training_memory`.

    Raises
    ------
    MemoryError
        The message contains the size of each part and what is available.
    """
    needed = training_memory(architecture, parameters, batch, optimizer, logits, extras)
    allocated = [
        name
        for name, vector in (
            ("parameters", parameters.weights),
            ("gradients", parameters.gradients),
        )
        if vector.allocated
    ]
    needed = replace(needed, copies=copies, **dict.fromkeys(allocated, 0))
    prefix = f"fit: training on batches of {batch} needs"
    more = " more" if allocated else ""
    devices.require(parameters.device, prefix, needed.total, needed.parts(), more)
