"""One step of a training, on the device of its tensors."""

from torch import Tensor

from maskrd.engine.machine import autocast
from maskrd.engine.optim import Optimizer
from maskrd.methods.base import Method


def gradient_step(
    method: Method, optimizer: Optimizer, images: Tensor, features: list[Tensor], precision: str
) -> Tensor:
    """Update the method's parameters from one batch; return its loss, a scalar that stays on the device.

    Nothing here may make the host wait for a GPU (tests/test_fake_cuda.py).
    """
    method.train()
    # Section 3.8: the loss, between the teacher's features and the student's.
    with autocast(images.device, precision):
        loss = method.loss(images, features)
    method.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
