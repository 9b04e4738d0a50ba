"""A GPU that isn't there: tensors with the device, dtype and strides that they would have on one, and no content.

torch's FakeTensorMode does that. What this adds: the backward pass works without a driver, and inside of `watch` every
operation is counted and checked, so that a step that passes could be captured as a CUDA graph.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskrd.methods.base import blur_matrix
from maskrd.methods.msfd import upsampling_matrix

DEVICE_QUERY = torch.ops.prim.device.default
# Kernels that take all their floating-point inputs in one dtype.
UNIFORM = ("convolution", "convolution_backward", "mm", "bmm", "addmm", "linear")
NO_KERNEL = ("detach", "empty", "empty_like", "empty_strided", "new_empty", "_reshape_alias", "alias", "lift_fresh")


class StepError(AssertionError):
    """What a GPU would refuse, or wait for."""


class FakeGpu:
    """`with FakeGpu("cuda") as gpu:` tensors made inside are fake."""

    def __init__(self, kind: str = "cuda") -> None:
        self.device = torch.device(kind, 0)
        self.kernels: Counter[str] | None = None  # inside of `watch`
        self.hidden = True  # whether autograd takes our tensors for those of no device
        self.fresh: set[int] = set()
        self.below_autograd = False
        self.nodes: list[object | None] = []

    def __enter__(self) -> "FakeGpu":
        self.stack = ExitStack()
        self.stack.enter_context(self.without_driver())
        for mode in (FakeTensorMode(), _Calls(self), _Operations(self)):
            self.stack.enter_context(mode)
        return self

    def __exit__(self, *reason: object) -> None:
        self.stack.close()

    @contextmanager
    def without_driver(self) -> Iterator[None]:
        """Autograd asks the driver for streams as soon as a tensor is on a GPU, so it is told that none is.

        Autocast has to know better: see `_Calls`.
        """
        original = FakeTensor.__torch_dispatch__

        def dispatch(cls: type, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
            if function is DEVICE_QUERY:
                return self.device_of(args[0])
            return original(function, types, args, kwargs)

        with (
            mock.patch.dict(fake_tensor._DISPATCH_META_HANDLERS, {DEVICE_QUERY: lambda args: self.device_of(args[0])}),
            mock.patch.object(FakeTensor, "__torch_dispatch__", classmethod(dispatch)),
            mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
            mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        ):
            clear_caches()
            yield
            clear_caches()

    def device_of(self, tensor: FakeTensor) -> torch.device:
        """What C++ is told. Python reads `tensor.device`, which always is the true one."""
        hidden = not self.below_autograd and (self.hidden or id(tensor) in self.fresh)
        return torch.device("meta") if hidden or tensor.fake_mode.in_kernel_invocation else tensor.fake_device

    @contextmanager
    def shown(self) -> Iterator[None]:
        before, self.below_autograd = self.below_autograd, True
        try:
            yield
        finally:
            self.below_autograd = before

    def move(self, module: nn.Module) -> nn.Module:
        """What `module.to(device, memory_format=torch.channels_last)` does, for a module made outside."""
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    part._parameters[name] = nn.Parameter(self.like(parameter), parameter.requires_grad)
                    self.nodes.append(accumulator(part._parameters[name]))
            part._buffers.update({name: self.like(buffer) for name, buffer in part._buffers.items()})
        return module

    def like(self, tensor: Tensor) -> Tensor:
        layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device, memory_format=layout)

    @contextmanager
    def watch(self) -> Iterator[Counter[str]]:
        """Check every operation inside, and count the kernels that a GPU would run, by name."""
        self.kernels = Counter()
        try:
            yield self.kernels
        finally:
            self.kernels = None

    def check(self, function: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        name = function.overloadpacket.__name__
        strangers = [tensor for tensor in outputs if tensor.device != self.device]
        if strangers:
            copied = any(tensor.device == self.device for tensor in inputs)
            raise StepError(f"{name}: {'copies to' if copied else 'a tensor is left on'} the {strangers[0].device}")
        if name in ("_to_copy", "copy_") and any(tensor.device != self.device for tensor in inputs):
            raise StepError(f"{name}: copies from the CPU, for which the host waits")
        dtypes = {tensor.dtype for tensor in inputs if tensor.is_floating_point()}
        if name in UNIFORM and len(dtypes) > 1:
            raise StepError(f"{name}: a cast is missing between {' and '.join(sorted(map(str, dtypes)))}")
        if self.device.type == "mps" and any(tensor.dtype == torch.float64 for tensor in outputs):
            raise StepError(f"{name}: Apple's GPUs have no float64")

    def count(self, function: Any, inputs: list[Tensor]) -> None:
        name = function.overloadpacket.__name__
        if name == "_to_copy" and inputs[0].is_floating_point():
            name = "cast"
        if not function.is_view and name not in NO_KERNEL:
            self.kernels[name] += 1


class _Calls(TorchFunctionMode):
    """Hides the GPU from autograd, but not from autocast, which looks at what a function is called with."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> object:
        if function in (Tensor.backward, torch.autograd.grad):
            self.gpu.hidden = True
            return function(*args, **(kwargs or {}))
        self.gpu.fresh.clear()
        self.gpu.hidden = not torch.is_autocast_enabled(self.gpu.device.type)
        result = function(*args, **(kwargs or {}))
        if function is Tensor.requires_grad_ and result.requires_grad:
            self.gpu.hidden = True
            self.gpu.nodes.append(accumulator(result))
        return result


class _Operations(TorchDispatchMode):
    """Sees every operation, those of the backward pass as well."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
        gpu = self.gpu
        if function is DEVICE_QUERY:
            return gpu.device_of(args[0])
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == torch.device("meta"):  # scratch that torch allocates beside a hidden tensor
            kwargs["device"] = gpu.device
        with gpu.shown():  # below autograd there is nothing to hide
            # SGD's kernel is the only one that torch can't run without content.
            result = None if function.overloadpacket.__name__ == "_fused_sgd_" else function(*args, **kwargs)
        outputs = tensors_in(result)
        gpu.fresh.update(map(id, outputs))  # autograd, which is next to look at them, is not to see the GPU
        if gpu.kernels is not None:
            inputs = tensors_in((args, kwargs))
            gpu.check(function, inputs, outputs)
            gpu.count(function, inputs)
        return result


def tensors_in(values: object) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def accumulator(parameter: Tensor) -> object | None:
    """The node that autograd makes at a leaf's first use. It's made here, while the GPU is hidden, to be kept."""
    return parameter.expand_as(parameter).grad_fn.next_functions[0][0] if parameter.requires_grad else None


def clear_caches() -> None:
    """Matrices that are kept by device: none of a fake one may stay."""
    for function in (blur_matrix, upsampling_matrix):
        function.cache_clear()
