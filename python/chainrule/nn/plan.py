"""Plans: the allocated buffers of a network at one batch size, and the two passes over them.

A training step in steady state runs the same kernels on the same memory and allocates nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .. import devices, ops
from .._types import Array
from . import user_defined
from .architecture import Architecture, Buffer, BufferLayout, Extras, Mode
from .layers import NO_BUFFER, LayerContext, Pooled
from .parameters import Parameters

# The largest total size of idle plans, in bytes. A single larger plan is also kept.
IDLE_BYTES = 64 * 2**20
IDLE_PLANS = 8


class Plan:
    """A network's buffers at one batch size in one arena, and the two passes over them.

    Parameters
    ----------
    architecture : Architecture
    parameters : Parameters
    batch : int
        Number of instances, at least 1.
    mode : Mode
    extras : mapping of name -> (shape of one instance, dtype)
        Buffers for the caller's own use.
    arena : ndarray
        The memory of a larger plan that is never used at the same time.

    Attributes
    ----------
    input, output : ndarray, (N, *input shape) and (N, *output shape)
    losses : ndarray (N,)
    doutput : ndarray like output
        A loss writes its gradient here.
    extras : mapping of name -> ndarray

    Raises
    ------
    MemoryError
        If parameters or buffers do not fit, with the numbers.
    """

    def __init__(
        self,
        architecture: Architecture,
        parameters: Parameters,
        batch: int,
        mode: Mode,
        extras: Extras | None = None,
        arena: Array | None = None,
    ) -> None:
        # Parameters first: if the network itself is too large, the error must not name the batch.
        parameters.weights.allocate()
        if mode.backward:
            parameters.gradients.allocate()
        layout = architecture.layout(batch, mode, extras)
        self.batch, self.mode, self.device = batch, mode, parameters.device
        if arena is None:
            prefix = f"Sequential: a batch of {batch} needs"
            arena = devices.zeros(self.device, layout.nbytes, prefix)
        self.arena = arena
        self.input = layout.input.view(arena)
        self.output = layout.output.view(arena)
        self.losses = layout.losses.view(arena)
        self.extras = {name: buffer.view(arena) for name, buffer in layout.extras.items()}
        fused_relus, pools = architecture.fused_relus, architecture.pooled_convolutions
        contexts = self._contexts(architecture, parameters, layout)
        for pool, fused in pools.items():
            y, argmax = contexts[pool].y, contexts[pool].saved["argmax"]
            contexts[fused.convolution].pooled = Pooled(y, argmax, fused.window)
        self._forward = [
            context
            for i, context in enumerate(contexts)
            if not (fused_relus[i] or i in pools or architecture.passes_through(i, mode))
        ]
        dy = layout.gradients[0].reshaped(self.output.shape)
        self.doutput = dy.view(arena)
        self._backward = (
            self._backward_walk(architecture, contexts, layout, dy) if mode.backward else []
        )
        # The first passes check that user-defined layers write their arrays.
        own = not all(map(user_defined.is_built_in, architecture.layers))
        self._checks_forward = self._checks_backward = own

    def _contexts(
        self, architecture: Architecture, parameters: Parameters, layout: BufferLayout
    ) -> list[LayerContext]:
        contexts: list[LayerContext] = []
        x: Buffer | None = layout.input
        for i, (y, saved) in enumerate(zip(layout.outputs, layout.saved, strict=True)):
            contexts.append(
                LayerContext(
                    architecture.layers[i],
                    x.view(self.arena) if x else NO_BUFFER,
                    y.view(self.arena) if y else NO_BUFFER,
                    parameters=parameters.of_layer(i),
                    gradients=parameters.gradients_of_layer(i) if self.mode.backward else {},
                    saved={name: buffer.view(self.arena) for name, buffer in saved.items()},
                    seed=parameters.dropout_seed(i),
                    dropout=self.mode.dropout,
                )
            )
            if architecture.fused_relus[i]:
                contexts[i - 1].activation = "relu"
            x = y
        return contexts

    def _backward_walk(
        self,
        architecture: Architecture,
        contexts: list[LayerContext],
        layout: BufferLayout,
        dy: Buffer,
    ) -> list[LayerContext]:
        """Return the contexts of the backward pass in order, each with its gradient buffers."""
        first, turn, walk = architecture.first_with_parameters, 0, []
        pools, skipped = architecture.pooled_convolutions, range(0)
        writing_dx = set(architecture.layers_writing_dx(self.mode))
        for i in range(len(contexts) - 1, first - 1, -1):
            context = contexts[i]
            if i in pools:
                convolution = pools[i].convolution
                skipped = range(convolution + 1, i + 1)
                if convolution < i - 1:
                    # Maximum and ReLU commute: ReLU's backward pass runs on the pooled output.
                    relu = contexts[i - 1].layer
                    walk.append(LayerContext(relu, context.y, context.y, dy=dy.view(self.arena)))
            if i in skipped:
                continue
            if architecture.passes_through(i, self.mode):
                dy = dy.reshaped(context.x.shape)
                continue
            context.dy = dy.view(self.arena)
            if i in writing_dx:
                turn = 1 - turn
                dy = layout.gradients[turn].reshaped(context.x.shape)
                context.dx = dy.view(self.arena)
            walk.append(context)
        return walk

    def load(self, x: Array) -> None:
        """Copy instances to ``input``. uint8 becomes value / 255, the library's only cast."""
        if not isinstance(self.input, np.ndarray):
            rows = devices.to_device("cuda", np.arange(len(x)))
            ops.gather(devices.to_device("cuda", x), rows, out=self.input)
        elif x.dtype == np.uint8:
            np.divide(x, self.input.dtype.type(255), out=self.input, dtype=self.input.dtype)
        else:
            np.copyto(self.input, x)

    def forward(self, count: int | Array = 0) -> Array:
        """Run the forward pass from ``input``. Return ``output``.

        Parameters
        ----------
        count : int, or ndarray of no dimensions
            The number of the training pass, for dropout's masks. A program that records this call
            reads an array at each replay.
        """
        if self._checks_forward:
            self._check_forward(count)
            return self.output
        for context in self._forward:
            context.offset = count
            context.layer.forward(context)
        return self.output

    def _check_forward(self, count: int | Array) -> None:
        for context in self._forward:
            context.offset = count
            if user_defined.is_built_in(context.layer):
                context.layer.forward(context)
            else:
                user_defined.forward(context)
        self._checks_forward = False

    def backward(self) -> None:
        """Run the backward pass from ``doutput``. Fill the gradients, eq. (41)-(42) without L2."""
        if self._checks_backward:
            self._check_backward()
            return
        for context in self._backward:
            context.layer.backward(context)

    def _check_backward(self) -> None:
        for context in self._backward:
            if user_defined.is_built_in(context.layer):
                context.layer.backward(context)
            else:
                user_defined.backward(context)
        self._checks_backward = False


class PlanCache:
    """Idle plans of one network. Each thread borrows the plan that it uses.

    Parameters
    ----------
    architecture : Architecture
    parameters : Parameters
    """

    def __init__(self, architecture: Architecture, parameters: Parameters) -> None:
        self._architecture, self._parameters = architecture, parameters
        self._lock = threading.Lock()
        self.idle: list[Plan] = []

    def clear(self) -> None:
        """Drop all idle plans. A borrowed plan of another device is dropped when returned."""
        with self._lock:
            self.idle = []

    @contextmanager
    def plan(self, batch: int, mode: Mode) -> Iterator[Plan]:
        """Borrow a plan for one thread: an idle one if one fits, else a new one."""
        with self._lock:
            fits = [idle for idle in self.idle if (idle.batch, idle.mode) == (batch, mode)]
            if fits:
                self.idle.remove(fits[0])
        plan = fits[0] if fits else self._new(batch, mode)
        try:
            yield plan
        finally:
            with self._lock:
                if plan.device == self._parameters.device:
                    self.idle.append(plan)
                while len(self.idle) > 1 and (
                    len(self.idle) > IDLE_PLANS
                    or sum(idle.arena.nbytes for idle in self.idle) > IDLE_BYTES
                ):
                    del self.idle[0]

    def batches(self, count: int, batch: int, mode: Mode) -> Iterator[tuple[slice, Plan]]:
        """Yield a slice of the ``count`` instances and a plan, batch by batch, in one arena."""
        if count == 0:
            return
        with self.plan(min(batch, count), mode) as plan:
            for start in range(0, count, batch):
                size = min(batch, count - start)
                fits = size == plan.batch
                yield (
                    slice(start, start + size),
                    plan if fits else self._new(size, mode, arena=plan.arena),
                )

    def _new(self, batch: int, mode: Mode, arena: Array | None = None) -> Plan:
        return Plan(self._architecture, self._parameters, batch, mode, arena=arena)
