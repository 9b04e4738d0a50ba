"""What a network costs for each image: FLOPs, bytes and parameters, counted on tensors without content.

FLOPs are those of convolutions and matrix products.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from maskrd.config.settings import Evaluation, Training
from maskrd.config.teachers import ARCHITECTURES
from maskrd.layers.resnet import count_parameters
from maskrd.methods import build_method
from maskrd.methods.base import OnePassMethod
from maskrd.methods.teacher import Teacher

BATCH = 2  # images counted on: BatchNorm wants two, and all costs are proportional
BYTES = 4  # of a float32
T = TypeVar("T")


@dataclass(frozen=True)
class NetworkCost:
    """FLOPs and bytes of one image, in fp32, and parameters.

    Of a method that learns in one pass only the teacher's are known beforehand.
    """

    teacher_flops: float
    step_flops: float  # student, forward and backward
    test_flops: float  # teacher and student, to the anomaly map
    feature_bytes: float  # the teacher's, as kept between epochs
    activation_bytes: float  # what the backward pass needs
    parameters: int
    teacher_parameters: int

    @property
    def image_flops(self) -> float:
        """What decides how long an image takes: a step's FLOPs, or the teacher's where nothing is stepped."""
        return self.step_flops or self.teacher_flops

    def training_bytes(self, settings: Training, images: int, cache_bytes: float) -> float:
        """Of one training: student with gradients and Adam's moments, images, kept features, activations."""
        networks = BYTES * (4 * self.parameters + self.teacher_parameters)
        pixels = images * 3 * settings.image_size**2
        kept = self.kept_bytes(settings, images)
        return networks + pixels + (kept if kept <= cache_bytes else 0) + self.activation_bytes * settings.batch_size

    def kept_bytes(self, settings: Training, images: int) -> float:
        """Of the features of all images, if they are kept; bf16 halves them."""
        return self.feature_bytes * images / (2 if settings.precision == "bf16" else 1)


@cache
def network_cost(settings: Training, evaluation: Evaluation, backbone: str) -> NetworkCost:
    size = settings.crop or settings.image_size
    with torch.device("meta"):
        teacher = Teacher(ARCHITECTURES[backbone], settings.normalize)
        method = build_method(settings, teacher)
        images = torch.empty(BATCH, 3, size, size, dtype=torch.uint8)
        features, teacher_flops = count_flops(lambda: teacher(images))
        saved: dict[int, int] = {}
        step_flops, test_flops = 0, teacher_flops
        if not isinstance(method, OnePassMethod):
            with remember_saved(saved):
                _, step_flops = count_flops(lambda: method.train().loss(images, features).backward())
            with torch.no_grad():
                _, test_flops = count_flops(lambda: method.eval().maps_and_scores(images, evaluation))
    return NetworkCost(
        teacher_flops=teacher_flops / BATCH,
        step_flops=step_flops / BATCH,
        test_flops=test_flops / BATCH,
        feature_bytes=sum(feature.nbytes for feature in features) / BATCH,
        activation_bytes=sum(saved.values()) / BATCH,
        parameters=count_parameters(method),
        teacher_parameters=count_parameters(teacher),
    )


class FlopCounter(TorchDispatchMode):
    """Sums torch's FLOP formulas over the operations within; two for a multiplication and addition.

    torch's own FlopCounterMode also keeps track of modules, which fails where a method takes gradients while testing.
    """

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function.overloadpacket)
        if formula:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def count_flops(call: Callable[[], T]) -> tuple[T, int]:
    """What the call returns, and its FLOPs."""
    with FlopCounter() as counter:
        result = call()
    return result, counter.total


@contextmanager
def remember_saved(sizes: dict[int, int]) -> Iterator[None]:
    """Bytes of what autograd keeps for the backward pass, by storage, without parameters."""

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage._cdata] = storage.nbytes()  # its identity: tensors without content have no data_ptr
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield
