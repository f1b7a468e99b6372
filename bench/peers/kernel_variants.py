"""Arrays and variants of the kernel cases, for chainrule and PyTorch, on the CPU and on a GPU.

A small kernel on a GPU takes less time than its launch. A GPU variant is therefore a CUDA graph of
many calls, which excludes the launch overhead of both libraries. The calls use several sets of
arrays in turn, which together exceed the L2 cache. All results stay allocated, so that they have
different addresses too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from bench.harness import timing
from bench.harness.case import Array, Inputs, Variant, VariantBuilders

# Bytes of all sets of arrays on a GPU: twice the largest L2 cache today. Tiny inputs are limited by
# the number of sets instead.
UNCACHED_BYTES, MAX_SETS = 128 * 2**20, 32
# Wanted duration of a CUDA graph, and the most kernel calls in it.
GRAPH_SECONDS, MAX_GRAPH_CALLS = 1e-3, 128

Call = Callable[[], Any]
MakeCall = Callable[[], Call]
ToResults = Callable[[Any], tuple[Array, ...]]


class ChainruleArrays:
    """The inputs of a case as chainrule's arrays on the CPU."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    def __getitem__(self, name: str) -> Any:
        return self.inputs[name]

    def copy(self, name: str) -> Any:
        """Return a writable copy of an input."""
        return self.inputs[name].copy()

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        return np.empty(shape, dtype)

    def empty_like(self, name: str) -> Any:
        return self.empty(self.inputs[name].shape)

    def variants(
        self, name: str, make_call: MakeCall, to_results: ToResults, in_place: bool = False
    ) -> VariantBuilders:
        """Return the builders of the variants of one way to call an operation.

        ``make_call`` returns a call with arrays of its own. ``to_results`` converts the return
        value of the call. Set ``in_place`` if a second call has different results.
        """
        return {name: lambda: variant(make_call(), to_results)}


class TorchArrays(ChainruleArrays):
    """The inputs of a case as PyTorch's tensors on the CPU."""

    device = "cpu"

    def __getitem__(self, name: str) -> Any:
        return self.tensor(self.inputs[name])

    def copy(self, name: str) -> Any:
        return self.tensor(self.inputs[name].copy())

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        return self.tensor(np.empty(shape, dtype))

    def tensor(self, array: Array) -> Any:
        import torch

        return torch.from_numpy(array).to(self.device)

    def images(self, name: str, channels_last: bool) -> Any:
        """Return images (N, H, W, C) as (N, C, H, W), contiguous in either memory format."""
        import torch

        images = self[name].permute(0, 3, 1, 2)
        if channels_last:
            # With one channel the strides of the permuted view are ambiguous. Copy it instead.
            return images.contiguous(memory_format=torch.channels_last)
        return images.contiguous()


def set_count(inputs: Inputs) -> int:
    """Return how many sets of these inputs exceed the L2 cache, at most MAX_SETS."""
    nbytes = sum(array.nbytes for array in inputs.values())
    return min(MAX_SETS, -(-UNCACHED_BYTES // max(1, nbytes)))


class CallSets:
    """One way to call an operation on a GPU, with several sets of arrays in turn."""

    def __init__(self, make_call: MakeCall, sets: int, wait: Call) -> None:
        self.calls, self.wait = [make_call() for _ in range(sets)], wait
        # The first calls load kernels, choose algorithms and compile.
        self.results = [call() for call in self.calls]
        wait()

    def operations(self) -> int:
        """Return how many calls last about GRAPH_SECONDS, as a multiple of the number of sets."""
        sets = len(self.calls)
        calls = cycle(self.calls)
        seconds = timing.time_calls(lambda: next(calls)(), 4 * sets, self.wait)
        return sets * max(1, min(MAX_GRAPH_CALLS // sets, round(GRAPH_SECONDS / seconds / sets)))

    def queue(self, count: int) -> None:
        """Make ``count`` calls, each with the next set, and store their results."""
        for i in range(count):
            self.results[i % len(self.calls)] = self.calls[i % len(self.calls)]()


def graph_variant(
    calls: CallSets,
    replay: Call,
    operations: int,
    to_results: ToResults,
    fresh_call: Call | None = None,
) -> Variant:
    """Return a variant that replays a CUDA graph, and whose results are those of a replay.

    ``fresh_call`` computes the results instead, if each replay has different ones.
    """

    def result() -> Any:
        if fresh_call is not None:
            return to_results(fresh_call())
        replay()
        calls.wait()
        return to_results(calls.results[0])

    return Variant(replay, result, operations, calls.wait)


class CudaChainruleArrays(ChainruleArrays):
    """The inputs of a case as chainrule's arrays on a GPU."""

    def __getitem__(self, name: str) -> Any:
        from chainrule import cuda

        return cuda.array(self.inputs[name])

    def copy(self, name: str) -> Any:
        return self[name]

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        from chainrule import cuda

        return cuda.empty(shape, dtype)

    def variants(
        self, name: str, make_call: MakeCall, to_results: ToResults, in_place: bool = False
    ) -> VariantBuilders:
        return {f"graph {name}": partial(self.graph, make_call, to_results, in_place)}

    def graph(self, make_call: MakeCall, to_results: ToResults, in_place: bool) -> Variant:
        from chainrule import Program, cuda

        calls = CallSets(make_call, set_count(self.inputs), cuda.synchronize)
        operations = calls.operations()
        with Program() as program:
            calls.queue(operations)
        fresh_call = (lambda: make_call()()) if in_place else None
        return graph_variant(calls, program.run, operations, to_results, fresh_call)


class CudaTorchArrays(TorchArrays):
    """The inputs of a case as PyTorch's tensors on a GPU."""

    device = "cuda"

    def copy(self, name: str) -> Any:
        return self[name].clone()

    def variants(
        self, name: str, make_call: MakeCall, to_results: ToResults, in_place: bool = False
    ) -> VariantBuilders:
        """Return a graph variant and, unless it is compiled, an eager one."""
        builders: VariantBuilders = {
            f"graph {name}": partial(self.graph, make_call, to_results, in_place)
        }
        if "compile" not in name:
            builders[name] = partial(self.eager, make_call, to_results, in_place)
        return builders

    def eager(self, make_call: MakeCall, to_results: ToResults, in_place: bool) -> Variant:
        import torch

        sets = CallSets(make_call, set_count(self.inputs), torch.cuda.synchronize)
        calls = cycle(sets.calls)

        def call() -> Any:
            return next(calls)()

        def result() -> tuple[Array, ...]:
            return to_results((make_call() if in_place else call)())

        return Variant(call, result, wait=sets.wait)

    def graph(self, make_call: MakeCall, to_results: ToResults, in_place: bool) -> Variant:
        import torch

        # PyTorch requires a warm-up on a side stream before a capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            calls = CallSets(make_call, set_count(self.inputs), torch.cuda.synchronize)
            operations = calls.operations()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            calls.queue(operations)
        fresh_call = (lambda: make_call()()) if in_place else None
        return graph_variant(calls, graph.replay, operations, to_results, fresh_call)


def chainrule_arrays(inputs: Inputs, device: str) -> ChainruleArrays:
    return CudaChainruleArrays(inputs) if device == "cuda" else ChainruleArrays(inputs)


def torch_arrays(inputs: Inputs, device: str) -> TorchArrays:
    return CudaTorchArrays(inputs) if device == "cuda" else TorchArrays(inputs)


def to_numpy(result: Any) -> Array:
    """Return an array of either library, on either device, as a NumPy array."""
    if hasattr(result, "detach"):
        result = result.detach().cpu().contiguous()
    array: Array = result if isinstance(result, np.ndarray) else result.numpy()
    return array


def as_tuple(result: Any) -> tuple[Array, ...]:
    """Return a single result as a tuple of one NumPy array."""
    return (to_numpy(result),)


def as_arrays(result: Any) -> tuple[Array, ...]:
    """Return all results as NumPy arrays."""
    return tuple(map(to_numpy, result))


def as_pair(result: Any) -> tuple[Array, ...]:
    """Return the first two results as NumPy arrays."""
    return to_numpy(result[0]), to_numpy(result[1])


def to_nhwc(result: Any) -> Array:
    """Return PyTorch's images (N, C, H, W) as a NumPy array (N, H, W, C)."""
    array: Array = np.ascontiguousarray(to_numpy(result).transpose(0, 2, 3, 1))
    return array


def compiled(call: Callable[..., Any]) -> Any:
    import torch

    return torch.compile(call, dynamic=False)


def variant(call: Call, to_results: ToResults) -> Variant:
    """Return a variant whose results are the converted return value of its call."""
    return Variant(call, lambda: to_results(call()))
