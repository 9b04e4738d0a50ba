"""Regenerates the tables and figures of a paper on masked reverse distillation."""

# Not read from the installed package: jobs in an environment of --sdm conda take maskrd from the working folder.
__version__ = "0.1.0"
