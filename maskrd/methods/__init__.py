"""The code of the methods; `config/methods.py` lists them."""

from importlib import import_module

from maskrd.config.methods import FileSettings
from maskrd.config.settings import Training
from maskrd.methods.base import Method
from maskrd.methods.from_file import build_from_file
from maskrd.methods.teacher import Teacher


def build_method(settings: Training, teacher: Teacher) -> Method:
    """The untrained method of a recipe. Its random weights come from torch's global generator."""
    if isinstance(settings, FileSettings):
        return build_from_file(settings, teacher)
    module, name = settings.implementation.split(":")
    return getattr(import_module(module), name)(settings, teacher)
