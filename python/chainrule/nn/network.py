"""The network: a sequence of layers with a forward and a backward pass."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import devices, ops
from .._files import PathLike
from .._optional import importing
from .._types import Array, Shape
from .._validation import integer
from . import user_defined
from .architecture import Architecture, Extras, Mode
from .initialization import Initializer
from .layers import Layer
from .losses import Loss, checked_loss
from .parameters import Parameters
from .plan import Plan, PlanCache
from .summary import Summary, summarize
from .training_memory import HasState

# Largest arena of a prediction, in bytes, unless one instance needs more.
PREDICT_BYTES = 64 * 2**20
# Larger batches are not faster and use more cache.
PREDICT_BATCH = 1024
PREDICT = Mode()


class Sequential:
    """A sequence of layers, f = f_L o ... o f_1, eq. (28)-(34).

    The weights are views of one vector, which is allocated and filled when first used. All random
    numbers derive from ``seed``: the same seed gives the same bits.

    Parameters
    ----------
    *layers : Layer
        At least one.
    input_shape : tuple of int
        Shape of one instance, such as (28, 28, 1), with 1 to 8 axes.
    seed : int
        Seed of the initial weights and of dropout, in [0, 2**64).
    dtype : str
        "float32" or "float64": the type of the weights and of all computation.
    init : str
        Rule for the initial weights. Biases are 0. "he" draws from a normal distribution of
        variance 2 / fan-in. "looks_linear" is for dense networks of hundreds of layers. See
        `chainrule.nn.initialization`.

    Attributes
    ----------
    architecture : Architecture
        Layers, shapes and dtype.
    storage : Parameters
        The memory of weights and gradients.
    init : str
        As given.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, or if a layer does not accept the shape before it.
    MemoryError
        If the weights do not fit in memory, with the numbers. It is raised at their first use.

    Notes
    -----
    Several threads may call `predict`, `forward` and `loss_and_gradient` of one network at once.

    Examples
    --------
    >>> import chainrule as cr
    >>> net = cr.Sequential(cr.Linear(3), cr.ReLU(), cr.Linear(2), input_shape=(4,))
    >>> net
    Sequential(
        Linear(3), ReLU(), Linear(2),
        input_shape=(4,), seed=0)
    >>> net.shapes
    ((4,), (3,), (3,), (2,))
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
        optimizer : SGD
            Its momentum needs memory. None means no momentum.
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

    def to(self, device: str) -> Sequential:
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

    # Computation

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the network's output for all of ``x`` at once, eq. (34).

        Parameters
        ----------
        x : ndarray (N, *input_shape)
            Of the network's dtype, or uint8, which means value / 255.
        training : bool
            Whether dropout is active.

        Returns
        -------
        ndarray (N, *output_shape)
            A new array.

        Raises
        ------
        TypeError, ValueError
            If ``x`` has another dtype or shape.
        MemoryError
            If the activations do not fit. `predict` needs bounded memory instead.

        Examples
        --------
        >>> import numpy as np
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.LeakyReLU(0.5), input_shape=(2,))
        >>> net.forward(np.array([[-2, 3]], np.float32)).tolist()
        [[-1.0, 3.0]]
        """
        x = self.checked("forward", x)
        if len(x) == 0:
            return np.empty((0, *self.output_shape), self.dtype)
        with self.plan(len(x), Mode(dropout=training)) as plan:
            plan.load(x)
            return devices.to_numpy(plan.forward(self.count_pass() if training else 0).copy())

    def predict(self, x: Array, batch_size: int | None = None) -> Array:
        """Return the network's output, computed batch by batch in bounded memory.

        A network that ends in a `Linear` layer returns logits. `predict_proba` returns
        probabilities. Dropout is inactive.

        Parameters
        ----------
        x : ndarray (N, *input_shape)
            As in `forward`.
        batch_size : int
            None means the largest batch whose buffers need at most 64 MiB, up to 1024.

        Returns
        -------
        ndarray (N, *output_shape)

        Raises
        ------
        TypeError, ValueError
            If ``x`` has another dtype or shape, or if ``batch_size`` is not a positive integer.

        Examples
        --------
        >>> import numpy as np
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(3), input_shape=(4,))
        >>> net.predict(np.ones((100, 4), np.float32), batch_size=32).shape
        (100, 3)
        """
        return self._predict("predict", x, batch_size)

    def predict_proba(self, x: Array, batch_size: int | None = None) -> Array:
        """Return the probability of each class, eq. (55), computed batch by batch.

        If the network ends in a `Softmax`, this is its output. Layers that only reshape may follow
        the softmax, and dropout, which is inactive. Otherwise softmax is applied to the output.

        Parameters
        ----------
        x, batch_size
            As in `predict`.

        Returns
        -------
        ndarray (N, *output_shape)
            Each row sums to 1.

        Raises
        ------
        TypeError, ValueError
            As in `predict`. Also if the final softmax is computed at several positions that are
            flattened later: the rows then do not sum to 1. Also if only layers without parameters
            follow the last softmax, and one of them is not known to keep its probabilities.

        Examples
        --------
        >>> import numpy as np
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(4), input_shape=(2,))
        >>> net.predict_proba(np.zeros((1, 2), np.float32)).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
        """
        self.architecture.check_output("predict_proba", dropout=False)
        output = self._predict("predict_proba", x, batch_size)
        return output if self.architecture.final_softmax is not None else ops.softmax(output)

    def _predict(self, operation: str, x: Array, batch_size: int | None) -> Array:
        x = self.checked(operation, x)
        batch = self.prediction_batch(operation, batch_size)
        result = np.empty((len(x), *self.output_shape), self.dtype)
        for part, plan in self.plans.batches(len(x), batch, PREDICT):
            plan.load(x[part])
            np.copyto(result[part], devices.to_numpy(plan.forward()))
        return result

    def loss_and_gradient(
        self, x: Array, y: Array, loss: Loss, training: bool = False
    ) -> tuple[float, dict[str, Array]]:
        """Return the mean loss and its gradient, eq. (41)-(42) without L2.

        The mean is the sum over instances, eq. (4) and (12), divided by their number, eq. (50).

        Parameters
        ----------
        x : ndarray (N, *input_shape)
            As in `forward`, with N at least 1.
        y : ndarray
            Labels (N,) or targets (N, *output_shape), as the loss requires.
        loss : Loss
        training : bool
            Whether dropout is active.

        Returns
        -------
        loss : float
        gradients : dict of name -> ndarray
            Copies. `gradient_vector` contains the same values.

        Raises
        ------
        TypeError, ValueError
            If an argument has another type, dtype or shape.

        Examples
        --------
        >>> import numpy as np
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(2), input_shape=(1,), dtype="float64")
        >>> net.parameter_vector = np.zeros(4)
        >>> x, y = np.ones((1, 1)), np.array([0])
        >>> loss, gradients = net.loss_and_gradient(x, y, cr.CrossEntropy())
        >>> round(loss, 4), gradients["0.bias"].tolist()
        (0.6931, [-0.5, 0.5])
        """
        x = self.checked("loss_and_gradient", x)
        checked_loss("loss_and_gradient", loss)
        if len(x) == 0:
            raise ValueError("loss_and_gradient: x must have at least one instance, got 0")
        self.architecture.check_loss(loss, training)
        target = loss.check(y, len(x), self.output_shape, self.dtype)
        mode = Mode(backward=True, dropout=training, logits=loss.takes_logits)
        with self.plan(len(x), mode) as plan, self.gradient_lock:
            plan.load(x)
            output = plan.forward(self.count_pass() if training else 0)
            target = devices.to_device(self.device, target)
            user_defined.compare(loss, output, target, plan.losses, plan.doutput)
            plan.backward()
            value = float(devices.to_numpy(plan.losses).sum(dtype=np.float64)) / len(x)
            gradients = self.storage.gradients.arrays
            return value, {
                name: devices.to_numpy(array.copy()) for name, array in gradients.items()
            }

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

    # Files

    def save(self, path: PathLike) -> None:
        """Write weights and architecture to a safetensors file, atomically.

        Parameters
        ----------
        path : str or path
            Should end in ".safetensors".

        Raises
        ------
        OSError
            If writing fails. An existing file is then unchanged.
        ValueError
            If the name ends like another format, such as "net.pt".

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(3), input_shape=(4,))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.save(pathlib.Path(folder, "net.safetensors"))
        ...     again = cr.load(pathlib.Path(folder, "net.safetensors"))
        >>> bool((again.parameter_vector == net.parameter_vector).all())
        True
        """
        # Imported here: the modules for files take a fifth of the package's import time.
        with importing:
            from . import serialization

        stored = serialization.Stored(self.architecture, self.seed)
        arrays = {name: devices.to_numpy(array) for name, array in self.parameters.items()}
        serialization.write(path, stored, arrays)

    @classmethod
    def load(cls, path: PathLike) -> Sequential:
        """Read a network that `save` wrote.

        The network is on the CPU, whatever device it was saved from.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If the file is not a network of this library. The message starts with ``load:``.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import chainrule as cr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "net.safetensors")
        ...     cr.Sequential(cr.Linear(3), input_shape=(4,), seed=5).save(path)
        ...     net = cr.load(path)
        >>> net.layers, net.seed
        ((Linear(3),), 5)
        """
        with importing:
            from . import serialization

        stored, arrays = serialization.read(path)
        network = cls.__new__(cls)
        network._build(stored.architecture, stored.seed, None)
        for name, array in network.parameters.items():
            np.copyto(array, arrays.pop(name))
        return network


def checked_network(operation: str, network: object) -> Sequential:
    """Return ``network``. Raise TypeError if it is not a `Sequential`."""
    if not isinstance(network, Sequential):
        raise TypeError(f"{operation}: network must be a Sequential, got {type(network).__name__}")
    return network


_networks: weakref.WeakSet[Sequential] = weakref.WeakSet()


def _after_fork() -> None:
    # A lock that another thread held at the fork would never be released in the child.
    for network in _networks:
        network._reset_locks()


os.register_at_fork(after_in_child=_after_fork)
