"""What the kernel cases need to hand the same arrays to PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from bench.case import Array, Leg

Variants = Mapping[str, Callable[[], Leg]]


def tensor(array: Array) -> Any:
    import torch

    return torch.from_numpy(array)


def images(array: Array, channels_last: bool) -> Any:
    """Return (N, H, W, C) as PyTorch's (N, C, H, W), in either order of memory."""
    import torch

    turned = torch.from_numpy(array).permute(0, 3, 1, 2)
    if channels_last:
        # Not merely the permuted view: with one channel its strides would say neither order.
        return turned.contiguous(memory_format=torch.channels_last)
    return turned.contiguous()


def array(result: Any) -> Array:
    found: Array = result.detach().contiguous().numpy()
    return found


def nhwc(result: Any) -> Array:
    found: Array = np.ascontiguousarray(array(result).transpose(0, 2, 3, 1))
    return found


def compiled(call: Callable[..., Any]) -> Any:
    import torch

    return torch.compile(call, dynamic=False)


def leg(call: Callable[[], Any], arrays: Callable[[Any], tuple[Array, ...]]) -> Leg:
    """Return a leg whose results are made from what its call returns."""
    return Leg(call, lambda: arrays(call()))


def one(call: Callable[[], Any]) -> Leg:
    """Return a leg whose call returns one array or tensor that needs no turning."""
    return leg(call, lambda got: (got if isinstance(got, np.ndarray) else array(got),))


def bind(call: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[[], Any]:
    return partial(call, *arguments, **named)
