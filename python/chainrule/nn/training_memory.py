"""What training holds in memory, from shapes alone; and its refusal where that does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .. import devices
from ..available_memory import Memory
from .losses import Loss
from .plan import Extras, Mode, draw
from .workspace import workspace

if TYPE_CHECKING:
    from ..training.optimizers import SGD
    from .network import Sequential


def training_memory(
    network: Sequential,
    batch: int,
    optimizer: SGD | None,
    logits: bool,
    extras: Extras,
) -> Memory:
    """Return what training holds at a batch size, from shapes alone.

    Parameters
    ----------
    network : Sequential, whose weights need not be there
    batch : int
    optimizer : SGD; None: one without momentum
    logits : bool, whether the loss takes over a final softmax
    extras : buffers of a step beside the network's own, as `plan.step_extras`
    """
    vector = network.weights.nbytes
    mode = Mode(backward=True, dropout=True, logits=logits)
    return Memory(
        parameters=vector,
        gradients=vector,
        velocities=vector if optimizer is not None and optimizer.momentum else 0,
        activations=draw(network, batch, mode, extras).nbytes,
        # A program brings its own, beside that of the thread that recorded it.
        workspace=2 * workspace(network, batch),
    )


def require_training(
    network: Sequential,
    batch: int,
    optimizer: SGD,
    loss: Loss,
    extras: Extras,
    copies: int,
) -> None:
    """Refuse training that does not fit before any of it is allocated.

    ``copies``: the bytes that stopping rules keep; all else as in `training_memory`.

    Raises
    ------
    MemoryError
        With what each part needs, and what is available.
    """
    needed = training_memory(network, batch, optimizer, loss.takes_logits, extras)
    there = [
        name
        for name, weights in (("parameters", network.weights), ("gradients", network.dweights))
        if weights.made
    ]
    needed = replace(needed, copies=copies, **dict.fromkeys(there, 0))
    what = f"fit: training on batches of {batch} needs"
    devices.require(network.device, what, needed.total, needed.parts(), " more" if there else "")
