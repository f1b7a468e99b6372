"""The base of a network: its description, parameters, device, plans and locks."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from .. import devices
from .._types import Array, Shape
from .._validation import integer
from .architecture import Architecture, Extras, Mode
from .initialization import Initializer
from .layers import Layer
from .losses import Loss
from .parameters import Parameters
from .plan import Plan, PlanCache
from .summary import Summary, summarize
from .training_memory import HasState

# Largest arena of a prediction, in bytes, unless one instance needs more.
PREDICT_BYTES = 64 * 2**20
# Larger batches are not faster and use more cache.
PREDICT_BATCH = 1024
PREDICT = Mode()


class BaseNetwork:
    """The description, memory and locks of a network. `Sequential` adds its computations and files.

    Attributes
    ----------
    architecture : Architecture
        Layers, shapes and dtype.
    storage : Parameters
        The memory of weights and gradients.
    init : str
        Rule for the initial weights.
    metadata : dict
        Notes that are saved with the network.
    """

    architecture: Architecture
    storage: Parameters
    init: str
    metadata: dict[str, Any]

    def _build(self, architecture: Architecture, seed: int, init: str | None) -> None:
        seed = integer("Sequential", "seed", seed, 0, 2**64 - 1)
        fill = None if init is None else Initializer(init, architecture, seed)
        self.architecture = architecture
        self.init = "he" if init is None else init
        self.storage = Parameters(architecture, seed, fill)
        self.metadata = {}
        self._count = 0
        self._reset_locks()
        _networks.add(self)

    # Description

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, first to last."""
        return self.architecture.layers

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of one instance before each layer, and after the last."""
        return self.architecture.shapes

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.architecture.dtype

    @property
    def seed(self) -> int:
        """The seed of the initial weights and of dropout."""
        return self.storage.seed

    @property
    def input_shape(self) -> Shape:
        """The shape of one input instance."""
        return self.shapes[0]

    @property
    def output_shape(self) -> Shape:
        """The shape of one output instance."""
        return self.shapes[-1]

    def __repr__(self) -> str:
        lines, line = [], ""
        for layer in self.layers:
            if line and len(line) + len(repr(layer)) > 88:
                lines.append(line)
                line = ""
            line += f"{' ' if line else ''}{layer!r},"
        end = f"input_shape={self.input_shape}, seed={self.seed}"
        if self.dtype != np.float32:
            end += f', dtype="{self.dtype}"'
        if self.init != "he":
            end += f', init="{self.init}"'
        return "\n    ".join(["Sequential(", *lines, *([line] if line else []), end + ")"])

    def summary(
        self, batch_size: int = 128, optimizer: HasState | None = None, loss: Loss | None = None
    ) -> Summary:
        """Return a table of shapes, parameters, FLOPs and memory, for print or a notebook.

        Nothing is allocated. A network too large for any memory has a summary too.

        Parameters
        ----------
        batch_size : int
            Instances per training step, at least 1.
        optimizer : Optimizer
            Its state needs memory. None means no state.
        loss : Loss
            Its targets need memory. None means `CrossEntropy`.

        Examples
        --------
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(3), cr.ReLU(), cr.Linear(2), input_shape=(4,))
        >>> summary = net.summary(batch_size=32)
        >>> summary.parameters, summary.flops
        (23, 39)
        """
        batch_size = integer("summary", "batch_size", batch_size, 1)
        return summarize(self.architecture, self.storage, batch_size, optimizer, loss)

    # Parameters

    @property
    def vector(self) -> Array:
        """The memory of all parameters: the named arrays one after another, padded with zeros.

        `parameter_vector` has the order of eq. (43) instead.
        """
        return self.storage.weights.vector

    @property
    def dvector(self) -> Array:
        """The memory of all gradients, with the layout of `vector`."""
        return self.storage.gradients.vector

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Name -> array, such as "0.weight". The arrays are views: writing changes the network.

        Examples
        --------
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(3), cr.ReLU(), cr.Linear(2), input_shape=(4,))
        >>> {name: array.shape for name, array in net.parameters.items()}
        {'0.weight': (3, 4), '0.bias': (3,), '2.weight': (2, 3), '2.bias': (2,)}
        """
        return MappingProxyType(self.storage.weights.arrays)

    @property
    def gradients(self) -> Mapping[str, Array]:
        """Name -> array: views of the gradient that was computed last."""
        return MappingProxyType(self.storage.gradients.arrays)

    @property
    def parameter_vector(self) -> Array:
        """A copy of all parameters in the order of eq. (43). Assignment sets all parameters.

        The order is layer after layer, neuron (or filter) after neuron, its bias first.

        Examples
        --------
        >>> import numpy as np
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(2), input_shape=(2,), dtype="float64")
        >>> net.parameter_vector = np.arange(6.0)
        >>> net.parameters["0.bias"].tolist()
        [0.0, 3.0]
        >>> net.parameters["0.weight"].tolist()
        [[1.0, 2.0], [4.0, 5.0]]
        """
        return self.storage.weights.in_order()

    @parameter_vector.setter
    def parameter_vector(self, value: Array) -> None:
        self.storage.weights.set_in_order(value)

    @property
    def gradient_vector(self) -> Array:
        """A copy of the gradient of the last `loss_and_gradient`, eq. (2), in the order of (44)."""
        return self.storage.gradients.in_order()

    @property
    def device(self) -> str:
        """ "cpu" or "cuda": the location of its memory and operations. `to` changes it."""
        return self.storage.device

    def to(self, device: str) -> Self:
        """Move the network to the CPU or to a GPU, and return it.

        On a GPU its arrays are `chainrule.cuda.Array`. Arguments and results stay NumPy arrays.
        Arrays obtained earlier stay valid but no longer alias the network's parameters.

        Parameters
        ----------
        device : str
            "cpu" or "cuda".

        Raises
        ------
        ValueError
            If the device is neither of the two.
        RuntimeError
            If no GPU is usable, with the reason. Also if the network is training.
        MemoryError
            If the network does not fit. It then stays on its device.

        Examples
        --------
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(3), input_shape=(4,))
        >>> net.to("cpu").device
        'cpu'
        """
        devices.check("to", device)
        with self.training("to"), self.gradient_lock:
            self.storage.to(device)
            self.plans.clear()
        return self

    def layer_parameters(self, index: int) -> dict[str, Array]:
        """Return the parameters of layer ``index`` by the layer's own names, such as "weight"."""
        return self.storage.of_layer(index)

    def layer_gradients(self, index: int) -> dict[str, Array]:
        """Return the gradients of layer ``index`` by the layer's own names, such as "weight"."""
        return self.storage.gradients_of_layer(index)

    def dropout_seed(self, index: int) -> int:
        """Return the seed of the dropout masks of layer ``index``."""
        return self.storage.dropout_seed(index)

    # Batches and counts

    def checked(self, operation: str, x: object) -> Array:
        """Return ``x`` as an array. See `Architecture.checked_input`."""
        return self.architecture.checked_input(operation, x)

    def count_pass(self, passes: int = 1) -> int:
        """Add training passes to the count, and return the count before."""
        with self._count_lock:
            self._count += passes
            return self._count - passes

    def prediction_batch(self, operation: str, batch_size: int | None, mode: Mode = PREDICT) -> int:
        """Return ``batch_size``, or the largest one whose plan needs at most `PREDICT_BYTES`."""
        if batch_size is not None:
            return integer(operation, "batch_size", batch_size, 1)
        one, two = (self.architecture.layout(batch, mode).nbytes for batch in (1, 2))
        return int(min(PREDICT_BATCH, max(1, PREDICT_BYTES // max(1, two - one, one // 2))))

    # Plans and locks

    def _reset_locks(self) -> None:
        self.storage.reset_locks()
        self._training = threading.Lock()
        # Held by a thread from the time it fills `gradients` until it has read them.
        self.gradient_lock = threading.RLock()
        self._count_lock = threading.Lock()
        self.plans = PlanCache(self.architecture, self.storage)

    def plan(self, batch: int, mode: Mode) -> AbstractContextManager[Plan]:
        """Borrow a plan for one thread. See `PlanCache.plan`."""
        return self.plans.plan(batch, mode)

    def new_plan(
        self, batch: int, mode: Mode, extras: Extras | None = None, arena: Array | None = None
    ) -> Plan:
        """Allocate a plan that the caller owns. See `Plan`."""
        return Plan(self.architecture, self.storage, batch, mode, extras, arena)

    @contextmanager
    def training(self, operation: str) -> Iterator[None]:
        """Hold the training lock. Raise RuntimeError if another call holds it."""
        if not self._training.acquire(blocking=False):
            raise RuntimeError(f"{operation}: this network is already training in another call")
        try:
            yield
        finally:
            self._training.release()


_networks: weakref.WeakSet[BaseNetwork] = weakref.WeakSet()


def _after_fork() -> None:
    # A lock that another thread held at the fork would never be released in the child.
    for network in _networks:
        network._reset_locks()


os.register_at_fork(after_in_child=_after_fork)
