"""What `maskrd plan` says of a training's memory, against the tensors that are alive in a step."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from maskrd.config.load import load_experiment
from maskrd.config.teachers import ARCHITECTURES
from maskrd.engine.optim import build_optimizer
from maskrd.engine.step import gradient_step
from maskrd.inspection.flops import network_cost
from maskrd.methods import build_method
from maskrd.methods.teacher import Teacher
from tests.fake_gpu import tensors_in

EXPERIMENT = load_experiment(())
# The network of every method, and those of Table 4 and of CIFAR-10.
NETWORKS = [
    *(("mvtec_ad", "maskrd", backbone) for backbone in EXPERIMENT.backbones),
    ("cifar10", "maskrd", EXPERIMENT.backbone),
    ("mvtec_ad", "rd", EXPERIMENT.backbone),
    ("mvtec_ad", "stpm", "resnet18"),
    ("mvtec_ad", "mkd", "vgg16"),
    ("mvtec_ad", "msfd", "resnet18"),
    ("mvtec_ad", "asymmetric", "resnet18"),
]


class LiveBytes(TorchDispatchMode):
    """The greatest sum of the storages that are alive at a time, of those made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ == "_fused_sgd_":  # torch can't run it without content
            return None
        result = function(*args, **(kwargs or {}))
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        for tensor in tensors_in(result):
            storage = tensor.untyped_storage()
            self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


@pytest.mark.parametrize(("dataset", "variant", "backbone"), NETWORKS)
def test_a_step_takes_the_memory_that_the_plan_says(dataset, variant, backbone):
    """Tensors without content, so that the largest network takes no memory here."""
    recipe = EXPERIMENT.recipe(dataset, variant)
    settings, batch = recipe.training, recipe.training.batch_size
    planned = network_cost(settings, recipe.evaluation, backbone).training_bytes(settings, batch, cache_bytes=1e12)
    size = settings.crop or settings.image_size
    with LiveBytes() as live, torch.device("meta"):
        teacher = Teacher(ARCHITECTURES[backbone], settings.normalize)
        method = build_method(settings, teacher)
        optimizer = build_optimizer(settings, method.parameters())
        images = torch.empty(batch, 3, size, size, dtype=torch.uint8)
        features = teacher(images)
        for _ in range(2):
            gradient_step(method, optimizer, images, features, "fp32")
    assert live.peak == pytest.approx(planned, rel=0.15)
