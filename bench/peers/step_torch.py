"""PyTorch's training step, with the options that its users know, on the CPU and on a GPU."""

from __future__ import annotations

import math
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from bench.harness.case import Array, BuilderFactory, Inputs, Variant, VariantBuilders
from bench.harness.networks import Network, parameter_names

DENSE_VARIANTS = ("default", "fused", "compile fused")
IMAGE_VARIANTS = (
    "default",
    "fused",
    "channels_last fused",
    "compile fused",
    "compile channels_last fused",
)
# A compiled step still launches several kernels. On a GPU it is therefore timed in a CUDA graph.
CUDA_DENSE_VARIANTS = ("default", "fused", "graph", "graph compile")
CUDA_IMAGE_VARIANTS = (
    *CUDA_DENSE_VARIANTS,
    "channels_last fused",
    "graph channels_last",
    "graph compile channels_last",
)
# Steps between two reads of the loss on a GPU. chainrule has the same interval.
STEPS_PER_SYNC = 64


def _layer(kind: str, numbers: list[Any], channels: int) -> Any:
    from torch import nn

    if kind == "conv2d":
        return nn.Conv2d(channels, numbers[0], numbers[1], padding=numbers[2])
    if kind == "linear":
        return nn.Linear(channels, numbers[0])
    classes = {
        "dropout": nn.Dropout,
        "relu": nn.ReLU,
        "flatten": nn.Flatten,
        "max_pool2d": nn.MaxPool2d,
    }
    return classes[kind](*numbers)


def _image_shape(network: Network, layer: int) -> tuple[int, ...] | None:
    """Return the image shape (H, W, C) that a linear layer receives flattened, otherwise None.

    PyTorch flattens (C, H, W), so the columns of that layer's weight have another order.
    """
    shapes = network.shapes()
    for before in range(layer - 1, -1, -1):
        if network.layers[before][0] == "flatten":
            return shapes[before] if len(shapes[before]) == 3 else None
        if network.layers[before][0] == "linear":
            return None
    return None


def to_torch_layout(network: Network, name: str, array: Array) -> Array:
    """Return a parameter with PyTorch's order of axes."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    image = _image_shape(network, int(name.partition(".")[0])) if array.ndim == 2 else None
    if image is None:
        return array
    rows = array.reshape(-1, *image).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(rows.reshape(len(array), -1))


def from_torch_layout(network: Network, name: str, array: Array) -> Array:
    """Return one of PyTorch's parameters with chainrule's order of axes."""
    if array.ndim == 4:
        return array.transpose(0, 2, 3, 1)
    image = _image_shape(network, int(name.partition(".")[0])) if array.ndim == 2 else None
    if image is None:
        return array
    height, width, channels = image
    rows = array.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return rows.reshape(len(array), -1)


def configure_cuda() -> None:
    """Set strict float32, chainrule's default, and the fastest convolution algorithms."""
    import torch
    import torch._dynamo

    from bench.peers.kernel_variants import MAX_SETS

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    # An optimizer is compiled once per set of arrays.
    torch._dynamo.config.recompile_limit = 2 * MAX_SETS


class Training:
    """A model, its optimizer and its data.

    Images are converted to float32 beforehand, which favors PyTorch. On a GPU all arrays are in
    its memory, and the loss is read every STEPS_PER_SYNC steps, because each read waits.
    """

    def __init__(self, network: Network, inputs: Inputs, variant: str, device: str = "cpu") -> None:
        import torch
        from torch import nn

        self.torch, self.device = torch, device
        self.steps_per_sync = 1 if device == "cpu" else STEPS_PER_SYNC
        self.steps = 0
        channels_last = "channels_last" in variant
        layers = [
            _layer(kind, numbers, shape[-1])
            for (kind, *numbers), shape in zip(network.layers, network.shapes(), strict=False)
        ]
        self.model: Any = nn.Sequential(*layers)
        self.network = network
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.model.to(device)
        self.parameters = dict(self.model.named_parameters())
        for parameter in self.parameters.values():
            # Independent of whether gradients were enabled while the module was built.
            parameter.requires_grad_(True)
        self.load(inputs)
        self.x = self.tensor(inputs["x"], channels_last)
        self.labels = torch.from_numpy(inputs["labels"]).to(device)
        self.order = cycle([torch.from_numpy(batch).to(device) for batch in inputs["order"]])
        self.optimizer = self.make_optimizer(variant)
        self.loss: Any = self._loss
        if "compile" in variant:
            self.loss = torch.compile(self._loss, dynamic=False)

    def make_optimizer(self, variant: str) -> Any:
        return self.torch.optim.SGD(
            self.model.parameters(),
            lr=self.network.learning_rate,
            momentum=self.network.momentum,
            fused=True if "fused" in variant else None,
        )

    def set_learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def tensor(self, x: Array, channels_last: bool) -> Any:
        """Return instances as a float32 tensor; images as (N, C, H, W)."""
        values = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
        tensor = self.torch.from_numpy(values).to(self.device)
        if tensor.dim() != 4:
            return tensor
        tensor = tensor.permute(0, 3, 1, 2)
        if channels_last:
            return tensor.contiguous(memory_format=self.torch.channels_last)
        return tensor.contiguous()

    def load(self, inputs: Inputs) -> None:
        """Copy initial parameters into the model."""
        for name in parameter_names(inputs):
            array = to_torch_layout(self.network, name, inputs[name])
            self.parameters[name].data.copy_(self.torch.from_numpy(array))

    def restart(self, inputs: Inputs) -> None:
        """Load other initial parameters and reset the velocities. Compiled code is kept."""
        self.load(inputs)
        self.optimizer.state.clear()

    def _loss(self, x: Any, labels: Any) -> Any:
        return self.torch.nn.functional.cross_entropy(self.model(x), labels)

    def step(self) -> float:
        """Train on the next batch and return its loss."""
        with self.torch.enable_grad():
            return self.train_batch(next(self.order))

    def update(self, indices: Any) -> Any:
        """Train on the instances at these indices and return the loss as a tensor."""
        loss = self.loss(self.x.index_select(0, indices), self.labels.index_select(0, indices))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss

    def train_batch(self, indices: Any) -> float:
        return self.read_loss(self.update(indices))

    def read_loss(self, loss: Any) -> float:
        """Return the loss, or 0 if this step does not read it.

        Raises ArithmeticError if the loss is not finite.
        """
        self.steps += 1
        if self.steps % self.steps_per_sync:
            return 0.0
        value = float(loss.item())
        if not math.isfinite(value):
            raise ArithmeticError(f"loss must be finite, got {value}")
        return value

    def velocity(self, name: str) -> Array:
        buffer = self.optimizer.state[self.parameters[name]]["momentum_buffer"]
        array: Array = buffer.detach().cpu().contiguous().numpy()
        return array


class GraphTraining(Training):
    """Training on a GPU whose step is one CUDA graph per batch size."""

    def __init__(self, network: Network, inputs: Inputs, variant: str) -> None:
        self.graphs: dict[int, tuple[Any, Any, Any]] = {}
        super().__init__(network, inputs, variant, "cuda")

    def make_optimizer(self, variant: str) -> Any:
        """Return the fused optimizer. Only that one reads its learning rate from GPU memory."""
        self.rate = self.torch.tensor(self.network.learning_rate, device=self.device)
        return self.torch.optim.SGD(
            self.model.parameters(), lr=self.rate, momentum=self.network.momentum, fused=True
        )

    def set_learning_rate(self, rate: float) -> None:
        self.rate.fill_(rate)

    def restart(self, inputs: Inputs) -> None:
        self.load(inputs)
        # In place, because captured graphs contain the addresses of the velocities.
        for state in self.optimizer.state.values():
            state["momentum_buffer"].zero_()

    def train_batch(self, indices: Any) -> float:
        if len(indices) not in self.graphs:
            self.graphs[len(indices)] = self.capture(indices)
        graph, indices_of_graph, loss = self.graphs[len(indices)]
        indices_of_graph.copy_(indices)
        graph.replay()
        return self.read_loss(loss)

    def capture(self, indices: Any) -> tuple[Any, Any, Any]:
        """Capture a step on as many instances, and restore parameters and velocities."""
        torch, indices_of_graph = self.torch, indices.clone()
        parameters = [parameter.detach().clone() for parameter in self.parameters.values()]
        velocities = {
            parameter: state["momentum_buffer"].clone()
            for parameter, state in self.optimizer.state.items()
        }
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.update(indices_of_graph)
        torch.cuda.current_stream().wait_stream(side)
        # The capture then allocates the gradients in the memory pool of the graph.
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.update(indices_of_graph)
        for parameter, before in zip(self.parameters.values(), parameters, strict=True):
            parameter.data.copy_(before)
        for parameter, state in self.optimizer.state.items():
            buffer = state["momentum_buffer"]
            if parameter in velocities:
                buffer.copy_(velocities[parameter])
            else:
                buffer.zero_()
        return graph, indices_of_graph, loss


def make_training(network: Network, inputs: Inputs, variant: str, device: str) -> Training:
    if "graph" in variant:
        return GraphTraining(network, inputs, variant)
    return Training(network, inputs, variant, device)


def builders(
    network: Network, variants: tuple[str, ...], device: str, inputs: Inputs
) -> VariantBuilders:
    def result(variant: str) -> tuple[Array, ...]:
        training = make_training(network.without_dropout(), inputs, variant, device)
        training.step()
        training.step()
        return tuple(
            from_torch_layout(network, name, training.velocity(name))
            for name in parameter_names(inputs)
        )

    def build(variant: str) -> Variant:
        training = make_training(network, inputs, variant, device)
        if device == "cpu":
            return Variant(training.step, partial(result, variant))
        wait = training.torch.cuda.synchronize
        return Variant(training.step, partial(result, variant), wait=wait)

    return {variant: partial(build, variant) for variant in variants}


def factory(network: Network, device: str) -> BuilderFactory:
    image = any(layer[0] == "conv2d" for layer in network.layers)
    variants: tuple[str, ...] = IMAGE_VARIANTS if image else DENSE_VARIANTS
    if device == "cuda":
        variants = CUDA_IMAGE_VARIANTS if image else CUDA_DENSE_VARIANTS
    return partial(builders, network, variants, device)
