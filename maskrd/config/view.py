"""The view of a table or figure: everything that it is made of."""

from collections.abc import Iterator

from pydantic import Field

from maskrd.config.methods import AnyTraining
from maskrd.config.settings import (
    Backbone,
    Category,
    Evaluation,
    FigureSpec,
    Identifier,
    Model,
    StrictData,
    TableSpec,
)


class View(StrictData):
    """Everything that a table or figure is made of except its models' files. A job gets it as JSON."""

    name: str
    spec: TableSpec | FigureSpec
    title: str  # of the dataset
    layout: str
    categories: tuple[Category, ...]
    backbones: tuple[Backbone, ...]
    own_backbones: dict[Identifier, Backbone] = Field(default_factory=dict)
    seeds: tuple[int, ...]
    training: dict[str, AnyTraining]
    evaluation: dict[str, Evaluation]

    @property
    def caption(self) -> str:
        """The caption of the configuration as a sentence; `{dataset}` in it is the dataset's name."""
        return f"{self.spec.caption.replace('{dataset}', self.title).rstrip('. ')}."

    def models(self) -> Iterator[Model]:
        """The models that are shown, in the order of variants, backbones, categories, seeds."""
        for variant in self.spec.variants:
            for backbone in self.backbones_of(variant):
                for category in self.categories:
                    for seed in self.seeds:
                        yield Model(self.spec.dataset, category, variant, backbone, seed)

    def backbones_of(self, variant: str) -> tuple[Backbone, ...]:
        """The variant's own backbone if it has one, otherwise those of the view."""
        return (self.own_backbones[variant],) if variant in self.own_backbones else self.backbones
