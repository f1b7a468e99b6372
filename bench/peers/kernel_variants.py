"""The two libraries of the kernel cases as they are on a CPU: arrays, and legs made with them.

`bench.peers.gpu_legs` has their like on a GPU, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.harness.case import Array, Inputs, Leg

Variants = dict[str, Callable[[], Leg]]
Make = Callable[[], Callable[[], Any]]
Turn = Callable[[Any], tuple[Array, ...]]


class Chainrule:
    """A case's inputs as chainrule takes them."""

    def __init__(self, made: Inputs) -> None:
        self.made = made

    def __getitem__(self, name: str) -> Any:
        return self.made[name]

    def copy(self, name: str) -> Any:
        """Return an input that may be written to."""
        return self.made[name].copy()

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        return np.empty(shape, dtype)

    def like(self, name: str) -> Any:
        return self.empty(self.made[name].shape)

    def legs(self, name: str, make: Make, arrays: Turn, in_place: bool = False) -> Variants:
        """Return the variants of one way to call: ``make`` makes the call, with arrays of its own
        where the device has a cache to be kept out of, and ``arrays`` its results from what it
        returns. ``in_place``: a second call has other results."""
        return {name: partial(self.plain, make, arrays)}

    def plain(self, make: Make, arrays: Turn) -> Leg:
        return leg(make(), arrays)


class Torch(Chainrule):
    """The same arrays as PyTorch takes them."""

    device = "cpu"

    def __getitem__(self, name: str) -> Any:
        return self.tensor(self.made[name])

    def copy(self, name: str) -> Any:
        return self.tensor(self.made[name].copy())

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        return self.tensor(np.empty(shape, dtype))

    def tensor(self, array: Array) -> Any:
        import torch

        return torch.from_numpy(array).to(self.device)

    def images(self, name: str, channels_last: bool) -> Any:
        """Return (N, H, W, C) as PyTorch's (N, C, H, W), in either order of memory."""
        import torch

        turned = self[name].permute(0, 3, 1, 2)
        if channels_last:
            # Not merely the permuted view: with one channel its strides would say neither order.
            return turned.contiguous(memory_format=torch.channels_last)
        return turned.contiguous()


# Where a case's legs come from, for either device.
def chainrule(made: Inputs, device: str) -> Chainrule:
    from bench.peers import gpu_legs

    return gpu_legs.Chainrule(made) if device == "cuda" else Chainrule(made)


def torch(made: Inputs, device: str) -> Torch:
    from bench.peers import gpu_legs

    return gpu_legs.Torch(made) if device == "cuda" else Torch(made)


def array(result: Any) -> Array:
    """Return what either library returned, on either device, as a NumPy array."""
    if hasattr(result, "detach"):
        result = result.detach().cpu().contiguous()
    found: Array = result if isinstance(result, np.ndarray) else result.numpy()
    return found


def one(result: Any) -> tuple[Array, ...]:
    return (array(result),)


def two(result: Any) -> tuple[Array, ...]:
    return array(result[0]), array(result[1])


def nhwc(result: Any) -> Array:
    found: Array = np.ascontiguousarray(array(result).transpose(0, 2, 3, 1))
    return found


def compiled(call: Callable[..., Any]) -> Any:
    import torch

    return torch.compile(call, dynamic=False)


def leg(call: Callable[[], Any], arrays: Turn) -> Leg:
    """Return a leg whose results are made from what its call returns."""
    return Leg(call, lambda: arrays(call()))


def bind(call: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[[], Any]:
    return partial(call, *arguments, **named)
