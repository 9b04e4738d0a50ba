"""Regenerates the tables and figures of a paper on masked reverse distillation."""

from importlib.metadata import version

__version__ = version("maskrd")
