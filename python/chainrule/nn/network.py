"""A network is a list of layers, walked forward and walked back."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import cuda, devices
from .._types import Array, Shape
from .._validation import integer
from .architecture import Architecture, Extras, Mode
from .initialization import Initializer
from .layers import Layer
from .losses import Loss
from .parameters import Parameters
from .plan import Plan, PlanCache
from .summary import Summary, summarize
from .training_memory import HasMomentum

# predict's activations stay below this.
PREDICT_BYTES = 64 * 2**20
# More instances at once bring no speed, and cost cache.
PREDICT_BATCH = 1024
PREDICT = Mode()


class Sequential:
    """Layers in a row, f = f_L o ... o f_1; eq. (28)-(34).

    Weights are views into one vector, which is allocated and filled when first used; all random
    numbers come from ``seed``: same seed, same bits.

    Parameters
    ----------
    *layers : Layer
    input_shape : tuple of int, the shape of one instance, as (28, 28, 1)
    seed : int
    dtype : "float32" or "float64", of the weights and of everything computed
    init : how weights start, with biases at 0: "he", normal with variance 2 / fan-in; or
        "looks_linear", for dense networks of hundreds of layers (see `chainrule.nn.initialization`)

    Attributes
    ----------
    layers : tuple of Layer
    shapes : tuple of tuple, the instance's shape before each layer, and after the last
    dtype : numpy.dtype
    device : "cpu" or "cuda", where its memory lies and its operations run; see `to`
    seed : int
    vector, dvector : ndarray, the memory of all parameters and of all gradients: the named arrays
        in turn, with zeros between them. `parameter_vector` is the one in the order of eq. (43)

    Raises
    ------
    TypeError, ValueError
        Where an argument is none of the above, or a layer does not fit what comes before it.
    MemoryError
        When the weights are first used and do not fit the memory that there is, with the numbers.

    Notes
    -----
    Several threads may call `predict`, `forward` and `loss_and_gradient` of one network at once.
    """

    def __init__(
        self,
        *layers: Layer,
        input_shape: Shape,
        seed: int = 0,
        dtype: object = "float32",
        init: str = "he",
    ) -> None:
        self._build(Architecture.build(layers, input_shape, dtype), seed, init)

    def _build(self, architecture: Architecture, seed: int, init: str | None) -> None:
        seed = integer("Sequential", "seed", seed, 0, 2**64 - 1)
        fill = None if init is None else Initializer(init, architecture, seed)
        self.architecture = architecture
        self.init = "he" if init is None else init
        self.storage = Parameters(architecture, seed, fill)
        self._count = 0
        self._reset_locks()
        _networks.add(self)

    # What it is

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.architecture.layers

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return self.architecture.shapes

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.architecture.dtype

    @property
    def seed(self) -> int:
        return self.storage.seed

    @property
    def input_shape(self) -> Shape:
        return self.shapes[0]

    @property
    def output_shape(self) -> Shape:
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
        self, batch_size: int = 128, optimizer: HasMomentum | None = None, loss: Loss | None = None
    ) -> Summary:
        """Return a table of shapes, parameters, FLOPs and memory, for print or a notebook.

        Nothing is allocated: a network that is too large to exist has a summary too.

        Parameters
        ----------
        batch_size : int, of the training for which memory is predicted
        optimizer : SGD, whose momentum takes memory; None: without
        loss : Loss, whose targets take memory; None: `CrossEntropy`
        """
        batch_size = integer("summary", "batch_size", batch_size, 1)
        return summarize(self.architecture, self.storage, batch_size, optimizer, loss)

    # Parameters

    @property
    def vector(self) -> Array:
        return self.storage.weights.vector

    @property
    def dvector(self) -> Array:
        return self.storage.gradients.vector

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Name -> array, as "0.weight": views, so that writing into one changes the network."""
        return MappingProxyType(self.storage.weights.arrays)

    @property
    def gradients(self) -> Mapping[str, Array]:
        """Name -> array: views of the gradient that was computed last."""
        return MappingProxyType(self.storage.gradients.arrays)

    @property
    def parameter_vector(self) -> Array:
        """All parameters in the order of eq. (43): layer after layer, neuron after neuron (or
        filter after filter), the bias first. A copy; assign to it to set them."""
        return self.storage.weights.in_order()

    @parameter_vector.setter
    def parameter_vector(self, value: Array) -> None:
        self.storage.weights.set_in_order(value)

    @property
    def gradient_vector(self) -> Array:
        """The gradient of the last `loss_and_gradient`, eq. (2), in the order of (44). A copy."""
        return self.storage.gradients.in_order()

    @property
    def device(self) -> str:
        return self.storage.device

    def to(self, device: str) -> Sequential:
        """Move the network to the CPU ("cpu") or to a GPU ("cuda"), and return it.

        Its arrays are then `chainrule.cuda.Array`; what it takes and returns stays NumPy arrays.
        Arrays that were read from it before remain, but are its own no longer.

        Raises
        ------
        ValueError
            If the device is neither.
        RuntimeError
            If there is no GPU to use, with the reason; or while the network is training.
        MemoryError
            If it does not fit; it is then where it was.
        """
        devices.check("to", device)
        with self.training("to"), self.gradient_lock:
            self.storage.to(device)
            self.plans.clear()
        return self

    def layer_parameters(self, index: int) -> dict[str, Array]:
        """Return the parameters of layer ``index``, under the layer's own names."""
        return self.storage.of_layer(index)

    def layer_gradients(self, index: int) -> dict[str, Array]:
        """Return the gradients of layer ``index``, under the layer's own names."""
        return self.storage.gradients_of_layer(index)

    def dropout_seed(self, index: int) -> int:
        """Return the seed of the masks of layer ``index``."""
        return self.storage.dropout_seed(index)

    # Running it

    def forward(self, x: Array, training: bool = False) -> Array:
        """Compute the network's output for all of ``x`` at once; eq. (34).

        Parameters
        ----------
        x : ndarray (N, *input_shape), of the network's dtype, or uint8 which means value / 255
        training : bool, whether dropout is active

        Returns
        -------
        ndarray (N, *output_shape), a new array
        """
        x = self.checked("forward", x)
        if len(x) == 0:
            return np.empty((0, *self.output_shape), self.dtype)
        with self.plan(len(x), Mode(dropout=training)) as plan:
            plan.load(x)
            return devices.to_numpy(plan.forward(self.count_pass() if training else 0).copy())

    def predict(self, x: Array, batch_size: int | None = None) -> Array:
        """Compute the network's output, batch by batch: memory is bounded, but for the result.

        Parameters
        ----------
        x : as in `forward`
        batch_size : int; None: as many as keep the activations below 64 MiB, at most 1024

        Returns
        -------
        ndarray (N, *output_shape)
        """
        x = self.checked("predict", x)
        batch = self.prediction_batch("predict", batch_size)
        result = np.empty((len(x), *self.output_shape), self.dtype)
        for part, plan in self.plans.batches(len(x), batch, PREDICT):
            plan.load(x[part])
            np.copyto(result[part], devices.to_numpy(plan.forward()))
        return result

    def loss_and_gradient(
        self, x: Array, y: Array, loss: Loss, training: bool = False
    ) -> tuple[float, dict[str, Array]]:
        """Compute the mean loss and its gradient by every parameter; eq. (41)-(42) without L2.

        A sum over instances, eq. (4) and (12), that is divided by their number, eq. (50).

        Parameters
        ----------
        x : as in `forward`
        y : ndarray, labels (N,) or targets (N, *output_shape), as the loss wants them
        loss : Loss
        training : bool, whether dropout is active

        Returns
        -------
        loss : float
        gradients : dict of name -> ndarray, copies; `gradient_vector` holds them too
        """
        x = self.checked("loss_and_gradient", x)
        if not isinstance(loss, Loss):
            raise TypeError(
                f"loss_and_gradient: loss must be CrossEntropy() or SquaredError(), got {loss!r}"
            )
        if len(x) == 0:
            raise ValueError("loss_and_gradient: x must hold at least one instance, got 0")
        target = loss.check(y, len(x), self.output_shape, self.dtype)
        mode = Mode(backward=True, dropout=training, logits=loss.takes_logits)
        with self.plan(len(x), mode) as plan, self.gradient_lock:
            plan.load(x)
            output = plan.forward(self.count_pass() if training else 0)
            loss.compare(output, devices.to_device(self.device, target), plan.losses, plan.doutput)
            plan.backward()
            value = float(devices.to_numpy(plan.losses).sum(dtype=np.float64)) / len(x)
            named = self.storage.gradients.arrays
            return value, {name: devices.to_numpy(array.copy()) for name, array in named.items()}

    def checked(self, operation: str, x: object) -> Array:
        """Return ``x`` as an array that `Plan.load` takes; TypeError or ValueError otherwise."""
        if not isinstance(x, np.ndarray):
            if isinstance(x, cuda.Array):
                raise TypeError(
                    f"{operation}: x must be a NumPy array, got a cuda.Array: x.numpy() copies it"
                )
            if not hasattr(x, "__dlpack__"):
                raise TypeError(f"{operation}: x must be an array, got {type(x).__name__}")
            x = np.from_dlpack(x)
        if x.dtype != self.dtype and x.dtype != np.uint8:
            raise TypeError(
                f"{operation}: x must be {self.dtype} as the network is, or uint8 (which means "
                f'value / 255), got {x.dtype}: convert it with x.astype("{self.dtype}")'
            )
        if x.ndim == 0 or x.shape[1:] != self.input_shape:
            hint = ""
            if x.shape == self.input_shape:
                hint = ": a single instance is x[None]"
            elif (*x.shape[1:], 1) == self.input_shape:
                hint = ": add the channel axis with x[..., None]"
            wanted = ", ".join(["N", *map(str, self.input_shape)])
            raise ValueError(f"{operation}: x must have shape ({wanted}), got {x.shape}{hint}")
        return x

    def count_pass(self, passes: int = 1) -> int:
        """Return the number of training passes so far, and count more of them."""
        with self._count_lock:
            self._count += passes
            return self._count - passes

    def prediction_batch(self, operation: str, batch_size: int | None, mode: Mode = PREDICT) -> int:
        """Return ``batch_size``, or the one that keeps a plan within `PREDICT_BYTES`."""
        if batch_size is not None:
            return integer(operation, "batch_size", batch_size, 1)
        one, two = (self.architecture.layout(batch, mode).nbytes for batch in (1, 2))
        return int(min(PREDICT_BATCH, max(1, PREDICT_BYTES // max(1, two - one, one // 2))))

    # Plans and locks

    def _reset_locks(self) -> None:
        self.storage.reset_locks()
        self._training = threading.Lock()
        # Held by the thread that fills `gradients` or reads them.
        self.gradient_lock = threading.RLock()
        self._count_lock = threading.Lock()
        self.plans = PlanCache(self.architecture, self.storage)

    def plan(self, batch: int, mode: Mode) -> AbstractContextManager[Plan]:
        """Borrow a plan for one thread; see `PlanCache`."""
        return self.plans.plan(batch, mode)

    def new_plan(
        self, batch: int, mode: Mode, extras: Extras | None = None, arena: Array | None = None
    ) -> Plan:
        """Allocate a plan that the caller owns; see `Plan`."""
        return Plan(self.architecture, self.storage, batch, mode, extras, arena)

    @contextmanager
    def training(self, operation: str) -> Iterator[None]:
        """Hold the right to change the parameters; RuntimeError where another thread has it."""
        if not self._training.acquire(blocking=False):
            raise RuntimeError(f"{operation}: this network is already training in another call")
        try:
            yield
        finally:
            self._training.release()

    # On disk

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and architecture to a safetensors file, atomically."""
        # Only here: what reads and writes files takes a fifth of importing the package.
        from . import serialization

        stored = serialization.Stored(self.architecture, self.seed)
        arrays = {name: devices.to_numpy(array) for name, array in self.parameters.items()}
        serialization.write(path, stored, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sequential:
        """Read a network that `save` wrote; ValueError that begins ``load:`` for any other file."""
        from . import serialization

        stored, arrays = serialization.read(path)
        network = cls.__new__(cls)
        network._build(stored.architecture, stored.seed, None)
        for name, array in network.parameters.items():
            np.copyto(array, arrays.pop(name))
        return network


_networks: weakref.WeakSet[Sequential] = weakref.WeakSet()


def _after_fork() -> None:
    # A lock that another thread held at the fork would never be released in the child.
    for network in _networks:
        network._reset_locks()


os.register_at_fork(after_in_child=_after_fork)
