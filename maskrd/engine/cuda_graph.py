"""Steps of a training as CUDA graphs: one launch instead of some 500, and the same weights to the last bit."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from maskrd.engine.machine import Machine
from maskrd.methods.base import Method

Result = TypeVar("Result")


def uses_graphs(machine: Machine, device: torch.device, method: Method) -> bool:
    """Whether steps of `method` are to be graphs. A subclass of a capturable method must say so for itself."""
    return machine.cuda_graphs and device.type == "cuda" and vars(type(method)).get("capturable", False)


class CudaGraph(Generic[Result]):
    """The kernels that a call launches on an NVIDIA GPU, recorded without running them.

    The call must have run before. It may read nothing but tensors that stay where they are and the GPU's default
    generator, and must not wait for the GPU. Graphs of one `pool` share memory, so only one may run at a time.
    """

    def __init__(self, call: Callable[[], Result], pool: object = None) -> None:
        self.recorded = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.recorded, pool=pool):
                self.result = call()
        except RuntimeError as error:
            # After a failed call the end of the capture fails, too, and its error hides the first one.
            raise (error.__context__ or error) from None

    def replay(self) -> Result:
        """Launch the kernels. Returns what the call returned; its tensors have new values."""
        self.recorded.replay()
        return self.result


class GraphedStep:
    """`step(positions)` as a graph for each batch size.

    `step` takes the positions of a batch's images, on the GPU, and returns a tensor. `sizes` are those of all batches.
    Until each has run once, steps are eager: libraries load their kernels then, and optimizers make their states.
    `before_capture` drops tensors that eager steps have left.
    """

    def __init__(
        self,
        step: Callable[[Tensor], Tensor],
        sizes: Iterable[int],
        before_capture: Callable[[], None],
        capture_as: type[CudaGraph] = CudaGraph,
    ) -> None:
        self.step, self.before_capture, self.capture_as = step, before_capture, capture_as
        self.sizes = frozenset(sizes)
        self.unseen = set(self.sizes)
        self.captured: dict[int, tuple[Tensor, CudaGraph[Tensor]]] = {}

    def __call__(self, positions: Tensor) -> Tensor:
        if self.unseen:
            self.unseen.discard(len(positions))
            return self.step(positions)
        if not self.captured:
            self.capture(positions.device)
        static, graph = self.captured[len(positions)]
        static.copy_(positions)
        return graph.replay().clone()

    def capture(self, device: torch.device) -> None:
        """Record a step of each size. The largest comes first, so that the others fit into its memory."""
        self.before_capture()
        pool = None
        for size in sorted(self.sizes, reverse=True):
            static = torch.zeros(size, dtype=torch.int64, device=device)
            graph = self.capture_as(lambda static=static: self.step(static), pool)
            self.captured[size] = static, graph
            pool = pool or graph.recorded.pool()
