"""Networks from the text of ``--network``, such as "linear 64, relu, linear"."""

from __future__ import annotations

import re

import click

from ..nn.layers import KINDS, Flatten, Layer, Linear
from ..nn.network import Sequential

# "conv2d" is also "conv". Each name is in lower case and without underscores.
LAYERS = {name.lower(): kind for name, kind in KINDS.items()}
LAYERS |= {name.removesuffix("2d"): kind for name, kind in LAYERS.items()}
NUMBER = re.compile(r"\d{1,18}(\.\d{1,18})?", re.ASCII)
MAX_LAYERS = 1000


def network_of_text(text: str, input_shape: tuple[int, ...], outputs: int, seed: int) -> Sequential:
    """Build the network that a text describes.

    Layers are separated by commas. Each is the name of a layer of `chainrule`, and its numbers. The
    last is "linear", which gets the number of outputs. A `Flatten` is put before the first "linear"
    if it reads an image.

    Parameters
    ----------
    text : str
    input_shape : tuple of int
        The shape of one instance.
    outputs : int
    seed : int

    Raises
    ------
    click.BadParameter
        If the text describes no network.

    Examples
    --------
    >>> from chainrule.cli.architecture_text import network_of_text
    >>> network_of_text("conv 4 3, relu, maxpool 2, linear", (8, 8, 1), outputs=3, seed=0)
    Sequential(
        Conv2d(4, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(3),
        input_shape=(8, 8, 1), seed=0)
    """
    parts = [part.split() for part in text.split(",")]
    if parts[-1] != ["linear"]:
        raise _invalid('layers must end in "linear" without a number', ", ".join(parts[-1]) or text)
    if len(parts) > MAX_LAYERS:
        raise _invalid(f"layers must be at most {MAX_LAYERS}", len(parts))
    layers = [*(_layer(words) for words in parts[:-1]), Linear(outputs)]
    if len(input_shape) > 1 and not any(isinstance(layer, Flatten) for layer in layers):
        first = next(i for i, layer in enumerate(layers) if isinstance(layer, Linear))
        layers.insert(first, Flatten())
    try:
        return Sequential(*layers, input_shape=input_shape, seed=seed)
    except (TypeError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint="'--network'") from None


def _layer(words: list[str]) -> Layer:
    name = words[0].lower().replace("_", "") if words else ""
    if name not in LAYERS:
        raise _invalid(f"layer must be one of {', '.join(LAYERS)}", " ".join(words) or "none")
    numbers: list[float] = []
    for word in words[1:]:
        if not NUMBER.fullmatch(word):
            raise _invalid(f"numbers of {name} must be decimal", word)
        numbers.append(float(word) if "." in word else int(word))
    try:
        return LAYERS[name](*numbers)
    except (TypeError, ValueError) as error:
        reason = str(error).rpartition("__init__() ")[2]
        raise click.BadParameter(f"{' '.join(words)}: {reason}", param_hint="'--network'") from None


def _invalid(rule: str, got: object) -> click.BadParameter:
    return click.BadParameter(f"{rule}, got {got}", param_hint="'--network'")
