"""Learning without a gradient: the method looks at the teacher's features once."""

import time

import torch

from maskrd.engine.features import FeatureSource
from maskrd.engine.inputs import Inputs
from maskrd.engine.loop import Learned
from maskrd.engine.sampling import STEP, random_seed


@torch.no_grad()
def learn_in_one_pass(inputs: Inputs) -> Learned:
    """Let the method learn from all training images. It takes minutes, so no state is saved in between."""
    started, settings, method = time.monotonic(), inputs.settings, inputs.method
    features = FeatureSource(inputs.teacher, inputs.images, settings.precision, settings.batch_size, inputs.cache_gb)
    torch.manual_seed(random_seed(inputs.seed, STEP))
    method.learn(features, inputs.train_positions.to(inputs.device).split(settings.batch_size))
    seconds = time.monotonic() - started
    return Learned(method.state_dict(), [], epochs=1, best_epoch=None, seconds=seconds)
