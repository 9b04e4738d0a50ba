"""Steps of a training as CUDA graphs: one launch instead of some 500, and the same weights to the last bit."""

from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
# Steps of each batch size that run kernel by kernel first. Libraries load their kernels then, and optimizers make their
# states.
WARM_UP = 2


class CudaGraph(Generic[Result]):
    """The kernels that a call launches on an NVIDIA GPU. `replay` launches them again, on the same memory.

    The call must have run before. It may read nothing but tensors that stay where they are and the GPU's default
    generator, and must not wait for the GPU. Graphs of one `pool` share memory, so only one may run at a time.
    """

    def __init__(self, call: Callable[[], Result], pool: object = None) -> None:
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool):
            self.result = call()

    def replay(self) -> Result:
        """What the call returned; its tensors have new values."""
        self.graph.replay()
        return self.result


class GraphedStep:
    """`step(positions)` as a graph for each batch size, after `WARM_UP` steps of that size without one.

    `step` takes the positions of a batch's images, on the GPU, and returns a tensor.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], graph: type[CudaGraph] = CudaGraph) -> None:
        self.step, self.graph = step, graph
        self.seen: Counter[int] = Counter()
        self.captured: dict[int, tuple[Tensor, CudaGraph[Tensor]]] = {}

    def __call__(self, positions: Tensor) -> Tensor:
        size = len(positions)
        if self.seen[size] < WARM_UP:
            self.seen[size] += 1
            return self.step(positions)
        if size not in self.captured:
            self.captured[size] = self.capture(positions)
        kept, graph = self.captured[size]
        kept.copy_(positions)
        return graph.replay().clone()

    def capture(self, positions: Tensor) -> tuple[Tensor, CudaGraph[Tensor]]:
        """The tensor that the graph reads positions from, and the graph."""
        kept = positions.clone()
        others = [graph for _, graph in self.captured.values()]
        pool = others[0].graph.pool() if others else None
        return kept, self.graph(lambda: self.step(kept), pool)
