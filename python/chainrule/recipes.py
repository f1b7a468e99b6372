"""Three networks for MNIST, and the training of each.

`cnn`, `lenet` and `mlp` build the networks. `RECIPES` contains, by the same names, the training
that the command line uses by default. A recipe is plain data, so a script can start from one and
change a number.

Examples
--------
>>> import chainrule as cr
>>> recipe = cr.recipes.RECIPES["mlp"]
>>> network, (train, _) = recipe.network(seed=1), cr.data.digits()
>>> history = cr.fit(
...     network, train[:640], loss=cr.CrossEntropy(), optimizer=recipe.optimizer(),
...     batch_size=recipe.batch_size, epochs=1, progress=False,
... )
>>> len(history.epochs)
1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ._types import Shape
from .nn.layers import Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU
from .nn.network import Sequential
from .training.optimizers import SGD
from .training.schedules import OneCycle

__all__ = ["RECIPES", "Recipe", "cnn", "lenet", "mlp"]

IMAGE = (28, 28, 1)


def cnn(
    seed: int = 0, dtype: str = "float32", input_shape: Shape = IMAGE, outputs: int = 10
) -> Sequential:
    """Build the convolutional network with dropout: 1,199,882 parameters.

    Parameters
    ----------
    seed : int
        Seed of the initial weights and of the dropout masks.
    dtype : str
        ``"float32"`` or ``"float64"``.
    input_shape : tuple of int
        Rows, columns and channels of an image.
    outputs : int
        The number of classes.

    Returns
    -------
    Sequential
        From images (N, *input_shape) to logits (N, outputs).

    Examples
    --------
    >>> from chainrule import recipes
    >>> recipes.cnn().output_shape
    (10,)
    """
    return Sequential(
        Conv2d(32, 3),
        ReLU(),
        Conv2d(64, 3),
        ReLU(),
        MaxPool2d(2),
        Dropout(0.25),
        Flatten(),
        Linear(128),
        ReLU(),
        Dropout(0.5),
        Linear(outputs),
        input_shape=input_shape,
        seed=seed,
        dtype=dtype,
    )


def lenet(
    seed: int = 0, dtype: str = "float32", input_shape: Shape = IMAGE, outputs: int = 10
) -> Sequential:
    """Build LeNet-5 with ReLU and max-pooling instead of the original's: 61,706 parameters.

    Parameters and return value are those of `cnn`.

    Examples
    --------
    >>> from chainrule import recipes
    >>> recipes.lenet().parameter_vector.size
    61706
    """
    return Sequential(
        Conv2d(6, 5, padding="same"),
        ReLU(),
        MaxPool2d(2),
        Conv2d(16, 5),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Linear(120),
        ReLU(),
        Linear(84),
        ReLU(),
        Linear(outputs),
        input_shape=input_shape,
        seed=seed,
        dtype=dtype,
    )


def mlp(
    seed: int = 0, dtype: str = "float32", input_shape: Shape = IMAGE, outputs: int = 10
) -> Sequential:
    """Build a network with one hidden layer of 128 neurons: 101,770 parameters.

    Parameters and return value are those of `cnn`.

    Examples
    --------
    >>> from chainrule import recipes
    >>> recipes.mlp().parameter_vector.size
    101770
    """
    return Sequential(
        Flatten(),
        Linear(128),
        ReLU(),
        Linear(outputs),
        input_shape=input_shape,
        seed=seed,
        dtype=dtype,
    )


@dataclass(frozen=True)
class Recipe:
    """A network and its training on MNIST.

    Attributes
    ----------
    network : callable
        ``network(seed=0, dtype="float32")`` builds the network.
    epochs : int
        Passes over the full training set (60,000 images).
    epochs_embedded : int
        Passes over the embedded subset (6,000 images). A pass has a tenth of the steps.
    batch_size : int
        Instances per step.
    peak : float
        Highest learning rate of the one-cycle schedule.
    momentum : float
        Momentum of the gradient descent.
    l2 : float
        λ of eq. (40).
    validation : float
        Fraction of the training set used for validation: 5,000 of 60,000.

    Examples
    --------
    >>> from chainrule.recipes import RECIPES
    >>> RECIPES["lenet"].optimizer().momentum
    0.9
    """

    network: Callable[..., Sequential]
    epochs: int
    epochs_embedded: int
    batch_size: int = 128
    peak: float = 0.1
    momentum: float = 0.9
    l2: float = 0.0
    validation: float = 1.0 / 12.0

    def optimizer(self, peak: float | None = None) -> SGD:
        """Return a new optimizer. ``peak`` replaces the peak of the learning rate, if given."""
        schedule = OneCycle(self.peak if peak is None else peak)
        return SGD(learning_rate=schedule, momentum=self.momentum, l2=self.l2)


RECIPES: dict[str, Recipe] = {
    "cnn": Recipe(cnn, epochs=6, epochs_embedded=12, l2=1e-4),
    # At a peak of 0.1, one seed in four diverges within three epochs of the embedded subset.
    "lenet": Recipe(lenet, epochs=8, epochs_embedded=20, peak=0.05),
    "mlp": Recipe(mlp, epochs=10, epochs_embedded=20),
}
