"""PyTorch on a GPU: its precision, and a training step that is captured once and replayed."""

from __future__ import annotations

from typing import Any

from bench.harness.case import Inputs
from bench.harness.networks import Network
from bench.peers.gpu_legs import COPIES
from bench.peers.step_torch import Training


def strict() -> None:
    """Multiply in float32, as chainrule does by default; choose the fastest convolution."""
    import torch
    import torch._dynamo

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    # An optimizer is compiled for its own parameters: once for each set of arrays.
    torch._dynamo.config.recompile_limit = 2 * COPIES


class Graphed(Training):
    """Steps of which each is one graph: for every size of batch that comes."""

    def __init__(self, network: Network, inputs: Inputs, variant: str) -> None:
        self.graphs: dict[int, tuple[Any, Any, Any]] = {}
        super().__init__(network, inputs, variant, "cuda")

    def optimizer_of(self, variant: str) -> Any:
        """The fused one alone reads its rate from the GPU's memory."""
        self.rate = self.torch.tensor(self.network.learning_rate, device=self.device)
        return self.torch.optim.SGD(
            self.model.parameters(), lr=self.rate, momentum=self.network.momentum, fused=True
        )

    def set_rate(self, rate: float) -> None:
        self.rate.fill_(rate)

    def restart(self, inputs: Inputs) -> None:
        self.load(inputs)
        # In place: graphs know where the velocities lie.
        for state in self.optimizer.state.values():
            state["momentum_buffer"].zero_()

    def descend(self, chosen: Any) -> float:
        if len(chosen) not in self.graphs:
            self.graphs[len(chosen)] = self.captured(chosen)
        graph, source, loss = self.graphs[len(chosen)]
        source.copy_(chosen)
        graph.replay()
        return self.seen(loss)

    def captured(self, chosen: Any) -> tuple[Any, Any, Any]:
        """Capture a step on as many instances; parameters and velocities are as before."""
        torch, source = self.torch, chosen.clone()
        parameters = [one.detach().clone() for one in self.named.values()]
        velocities = {
            one: state["momentum_buffer"].clone() for one, state in self.optimizer.state.items()
        }
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.move(source)
        torch.cuda.current_stream().wait_stream(side)
        # So that the graph's own memory holds the gradients.
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.move(source)
        for one, before in zip(self.named.values(), parameters, strict=True):
            one.data.copy_(before)
        for one, state in self.optimizer.state.items():
            buffer = state["momentum_buffer"]
            buffer.copy_(velocities[one]) if one in velocities else buffer.zero_()
        return graph, source, loss
