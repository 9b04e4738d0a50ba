"""How many images categories have as published (counts.yaml)."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml


@dataclass(frozen=True)
class Counts:
    """Images of a category: normal ones to train on, and all that are tested."""

    train: int
    test: int


@cache
def published_counts() -> dict[str, dict[str, Counts]]:
    """By dataset and category; a dataset that is no fixed set of images is absent."""
    content = yaml.safe_load(files("maskrd.data").joinpath("counts.yaml").read_text(encoding="utf-8"))
    return {
        dataset: {category: Counts(*numbers) for category, numbers in categories.items()}
        for dataset, categories in content.items()
    }
