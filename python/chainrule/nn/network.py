"""The network: a sequence of layers with a forward and a backward pass."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from .. import devices, ops
from .._files import PathLike
from .._optional import importing
from .._types import Array, Shape
from .._validation import boolean
from . import user_defined
from .architecture import Architecture, Mode
from .base_network import PREDICT, BaseNetwork
from .layers import Layer
from .losses import Loss, checked_loss


class Sequential(BaseNetwork):
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
    metadata : dict
        Notes that `save` writes and `load` reads, such as the names of the classes. Keys are
        strings, and values are those of JSON. Empty at first.

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

    # Computation

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the network's output for all of ``x`` at once, eq. (34).

        Parameters
        ----------
        x : ndarray (N, *input_shape)
            Of the network's dtype. Images, with three axes per instance, may also be uint8, which
            means value / 255.
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

    def predict(self, x: ArrayLike, batch_size: int | None = None) -> Array:
        """Return the network's output, computed batch by batch in bounded memory.

        A network that ends in a `Linear` layer returns logits. `predict_proba` returns
        probabilities. Dropout is inactive.

        Parameters
        ----------
        x : array_like (N, *input_shape)
            An array as in `forward`, a list, or a DataFrame. Numbers of another dtype are
            converted. `ConversionWarning` says if values were rounded.
        batch_size : int
            None means the largest batch whose buffers need at most 64 MiB, up to 1024.

        Returns
        -------
        ndarray (N, *output_shape)

        Raises
        ------
        TypeError, ValueError
            If ``x`` has another shape or cannot be converted, or if ``batch_size`` is not a
            positive integer.

        Examples
        --------
        >>> import numpy as np
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(3), input_shape=(4,))
        >>> net.predict(np.ones((100, 4), np.float32), batch_size=32).shape
        (100, 3)
        """
        return self._predict("predict", x, batch_size)

    def predict_proba(
        self, x: ArrayLike, batch_size: int | None = None, multilabel: bool = False
    ) -> Array:
        """Return the probability of each class, eq. (55), computed batch by batch.

        If the network ends in a `Softmax`, this is its output. Layers that only reshape may follow
        the softmax, and dropout, which is inactive. Otherwise softmax is applied to the output.

        The output of a network with one output is the logit z of class 1, as `BinaryCrossEntropy`
        reads it. The two classes then have the probabilities 1 - σ(z) and σ(z), where
        σ(z) = 1 / (1 + e^-z). Outputs of a final `Sigmoid` are probabilities as they are.

        Parameters
        ----------
        x, batch_size
            As in `predict`.
        multilabel : bool
            If True, each output is the logit of a label of its own, as `BinaryCrossEntropy` reads
            several outputs. The probability of each label is then σ of its output.

        Returns
        -------
        ndarray (N, *output_shape)
            Each row sums to 1, except with ``multilabel``. With one output the shape is (N, 2).

        Raises
        ------
        TypeError, ValueError
            As in `predict`. Also if the final softmax is computed at several positions that are
            flattened later: the rows then do not sum to 1. Also if only layers without parameters
            follow the last softmax, and one of them is not known to keep its probabilities. Also if
            a softmax ends a network with one output, or is used with ``multilabel``, and if a
            sigmoid ends one with several outputs, and ``multilabel`` is False.

        Examples
        --------
        >>> import numpy as np
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(4), input_shape=(2,))
        >>> net.predict_proba(np.zeros((1, 2), np.float32)).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
        >>> net.predict_proba(np.zeros((1, 2), np.float32), multilabel=True).tolist()
        [[0.5, 0.5, 0.5, 0.5]]
        >>> cr.Sequential(cr.Linear(1), input_shape=(2,)).predict_proba(np.zeros((1, 2), "f4"))
        array([[0.5, 0.5]], dtype=float32)
        """
        multilabel = boolean("predict_proba", "multilabel", multilabel)
        self.architecture.check_output("predict_proba", dropout=False)
        has_softmax = self.architecture.final_softmax is not None
        binary = self.output_shape[-1] == 1
        if has_softmax and (multilabel or binary):
            rule = "with multilabel=True" if multilabel else "with one output"
            raise ValueError(
                f"predict_proba: a network {rule} must end in logits, got a softmax, whose outputs "
                f"sum to 1: remove it, and train with BinaryCrossEntropy()"
            )
        has_sigmoid = self.architecture.final_sigmoid is not None
        if has_sigmoid and not (multilabel or binary):
            raise ValueError(
                "predict_proba: multilabel must be True for a network of several outputs that ends "
                "in Sigmoid(), whose outputs need not sum to 1, got False"
            )
        output = self._predict("predict_proba", x, batch_size)
        if has_softmax:
            return output
        if has_sigmoid:
            return output if multilabel else np.concatenate([1 - output, output], axis=-1)
        if not (multilabel or binary):
            return ops.softmax(output)
        # The softmax of the logits 0 and z is 1 - σ(z) and σ(z), and accurate for any z.
        both = ops.softmax(np.stack([np.zeros_like(output), output], axis=-1))
        return both[..., 1].copy() if multilabel else both[..., 0, :].copy()

    def predict_class(self, x: ArrayLike, batch_size: int | None = None) -> Array:
        """Return the class of each instance: the index of the largest output.

        A network with one output is a binary classifier. Its class is 1 if the probability is above
        one half: the output is then a positive logit, or above 0.5 after a final `Sigmoid`.

        Parameters
        ----------
        x, batch_size
            As in `predict`.

        Returns
        -------
        ndarray of int64 (N, *output_shape[:-1])
            Class indices. For outputs of one axis the shape is (N,).

        Raises
        ------
        TypeError, ValueError
            As in `predict`. Also if an output is NaN, and if the only output is a softmax, which is
            always 1.

        Examples
        --------
        >>> import numpy as np
        >>> import chainrule as cr
        >>> net = cr.Sequential(cr.Linear(3), input_shape=(3,))
        >>> net.parameters["0.weight"][...] = np.eye(3)
        >>> net.predict_class(np.eye(3, dtype=np.float32)[[2, 0]]).tolist()
        [2, 0]
        """
        output = self._predict("predict_class", x, batch_size)
        wrong = np.argwhere(np.isnan(output))
        if wrong.size:
            raise ValueError(
                f"predict_class: outputs must not be NaN, got NaN for instance {wrong[0][0]}"
            )
        if self.output_shape[-1] > 1:
            return np.asarray(output.argmax(axis=-1))
        if self.architecture.final_softmax is not None:
            raise ValueError(
                "predict_class: a network with one output must not end in a Softmax, which is "
                "always 1, got one: remove the Softmax"
            )
        threshold = 0 if self.architecture.final_sigmoid is None else 0.5
        return (output[..., 0] > threshold).astype(np.int64)

    def _predict(self, operation: str, x: ArrayLike, batch_size: int | None) -> Array:
        array = self.accepted(operation, x)
        batch = self.prediction_batch(operation, batch_size)
        result = np.empty((len(array), *self.output_shape), self.dtype)
        for part, plan in self.plans.batches(len(array), batch, PREDICT):
            plan.load(array[part])
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

    # Files

    def save(self, path: PathLike) -> None:
        """Write weights, architecture and `metadata` to a safetensors file, atomically.

        What `load` could not read back is refused. `load` reads a layer of your own if its class is
        a frozen dataclass whose fields are its arguments: ``load(path, layers=[MyLayer])``.

        Parameters
        ----------
        path : str or path
            Should end in ".safetensors".

        Raises
        ------
        OSError
            If writing fails. An existing file is then unchanged.
        ValueError
            If the name ends like another format, such as "net.pt". Also if `load` could not read
            the file: a layer has attributes that are not its fields, `metadata` has more than
            256 KiB, or the network has more than 4096 layers.
        TypeError
            If `metadata` contains a value that JSON lacks.

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

        stored = serialization.Stored(self.architecture, self.seed, self.metadata)
        arrays = {name: devices.to_numpy(array) for name, array in self.parameters.items()}
        serialization.write(path, stored, arrays)

    @classmethod
    def load(cls, path: PathLike, layers: Iterable[type[Layer]] = ()) -> Sequential:
        """Read a network that `save` wrote.

        The network is on the CPU, whatever device it was saved from. A file is untrusted data: it
        runs no code except that of the classes in `layers`.

        Parameters
        ----------
        path : path-like
        layers : iterable of type[Layer]
            The classes of your own that the network uses. Each has the name that it had in `save`.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If the file is not a network of this library, or names a layer that is neither of this
            library nor in `layers`. The message starts with ``load:``.
        TypeError
            If `layers` are not classes of layers.

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

        Notes, and a layer of your own:

        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> @dataclass(frozen=True, repr=False)
        ... class Scale(cr.Layer):
        ...     factor: float = 2.0
        ...     def forward(self, context):
        ...         np.multiply(context.x, self.factor, out=context.y)
        >>> net = cr.Sequential(Scale(3.0), input_shape=(1,))
        >>> net.metadata["classes"] = ["cat", "dog"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.save(pathlib.Path(folder, "net.safetensors"))
        ...     net = cr.load(pathlib.Path(folder, "net.safetensors"), layers=[Scale])
        >>> net.layers, net.metadata
        ((Scale(factor=3.0),), {'classes': ['cat', 'dog']})
        """
        with importing:
            from . import serialization

        stored, arrays = serialization.read(path, layers)
        network = cls.__new__(cls)
        network._build(stored.architecture, stored.seed, None)
        network.metadata = stored.notes
        for name, array in network.parameters.items():
            np.copyto(array, arrays.pop(name))
        return network


def checked_network(operation: str, network: object) -> Sequential:
    """Return ``network``. Raise TypeError if it is not a `Sequential`."""
    if not isinstance(network, Sequential):
        raise TypeError(f"{operation}: network must be a Sequential, got {type(network).__name__}")
    return network
