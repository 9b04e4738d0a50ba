"""Anomaly detection methods by name. To add one: a file here, a line below, a name in `Training.method`."""

from importlib import import_module

from maskrd.experiment import Training
from maskrd.methods.base import Method
from maskrd.teacher import Teacher

METHODS = {
    "maskrd": "maskrd.methods.maskrd:MaskedReverseDistillation",
    "stpm": "maskrd.methods.stpm:STPM",
    "mkd": "maskrd.methods.mkd:MKD",
    "msfd": "maskrd.methods.msfd:MultiScaleFeatureDistillation",
    "asymmetric": "maskrd.methods.asymmetric:AsymmetricStudent",
}


def build_method(settings: Training, teacher: Teacher) -> Method:
    """The untrained method that a recipe describes; its weights come from torch's global generator."""
    module, name = METHODS[settings.method].split(":")
    return getattr(import_module(module), name)(settings, teacher)
