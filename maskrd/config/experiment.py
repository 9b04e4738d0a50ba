"""What a configuration means: recipes, models and the views of tables and figures."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr

from maskrd.config.devices import DeviceName
from maskrd.config.method_file import method_file_digest
from maskrd.config.methods import foreign_key, lies_in_file, setting_names, settings_class
from maskrd.config.settings import (
    Backbone,
    Dataset,
    Distinct,
    Evaluation,
    FigureSpec,
    Identifier,
    Model,
    ResultsPath,
    StrictData,
    TableSpec,
    Training,
    UserFile,
    UserPath,
    canonical_json,
)
from maskrd.config.view import View
from maskrd.errors import MaskrdError


@dataclass(frozen=True)
class Recipe:
    """All that decides the numbers of one model, except its data, teacher and seed."""

    training: Training
    evaluation: Evaluation

    def training_json(self) -> str:
        return canonical_json(self.training)

    def evaluation_json(self) -> str:
        return canonical_json(self.evaluation)


class Experiment(StrictData):
    """The whole configuration."""

    results: ResultsPath
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), Distinct]
    backbones: Annotated[tuple[Backbone, ...], Field(min_length=1), Distinct]
    device: DeviceName
    partial: bool
    keep_weights: bool
    sources: UserPath
    datasets: dict[Identifier, Dataset]
    weights: dict[Backbone, UserFile | None]
    train: dict[str, Any]
    evaluation: dict[str, Any]
    variants: dict[Identifier, dict[str, Any]]
    tables: dict[Identifier, TableSpec]
    figures: dict[Identifier, FigureSpec]

    _recipes: dict[tuple[str, str], Recipe] = PrivateAttr(default_factory=dict)

    def __copy__(self) -> Self:
        """For `model_copy`: other values make other recipes."""
        copied = super().__copy__()
        copied._recipes = {}
        return copied

    def with_datasets(self, datasets: dict[str, Dataset], stand_ins: dict[str, str]) -> Self:
        """The same with other datasets. A dataset that stands for another replaces it in tables and figures."""
        replaced = {
            kind: {
                name: spec.model_copy(update={"dataset": stand_ins.get(spec.dataset, spec.dataset)})
                for name, spec in getattr(self, kind).items()
            }
            for kind in ("tables", "figures")
        }
        return self.model_copy(update={"datasets": datasets, **replaced})

    @property
    def backbone(self) -> str:
        """The backbone of tables and figures that don't compare backbones, unless a variant has its own."""
        return self.backbones[-1]

    @property
    def used_backbones(self) -> tuple[Backbone, ...]:
        """All backbones that a model may be trained with: the configured ones and the variants' own."""
        own = [variant["backbone"] for variant in self.variants.values() if "backbone" in variant]
        return tuple(dict.fromkeys([*self.backbones, *own]))

    def recipe(self, dataset: str, variant: str) -> Recipe:
        """The sections `train` and `evaluation`, then the dataset's overrides, then the variant's."""
        if (dataset, variant) not in self._recipes:
            self._recipes[dataset, variant] = self._merged_recipe(dataset, variant)
        return self._recipes[dataset, variant]

    def _merged_recipe(self, dataset: str, variant: str) -> Recipe:
        # `backbone` chooses the teacher; it is not a setting of the training.
        difference = {key: value for key, value in self.variants[variant].items() if key != "backbone"}
        overrides = {**self.datasets[dataset].overrides(), **difference}
        if "image_size" in overrides:  # a crop belongs to the size that it was given for
            overrides = {"crop": None, **overrides}
        merged = {**self.train, **overrides}
        where = f"variants.{variant}" if "method" in difference else "train"
        section = settings_class(f"{where}.method", merged.get("method"))
        known = [*setting_names(section), *Evaluation.model_fields]
        unknown = sorted(set(difference) - set(known))
        if unknown:
            lines = (foreign_key(f"variants.{variant}", key, merged["method"], known) for key in unknown)
            raise MaskrdError("\n".join(lines))
        evaluation = _chosen(
            Evaluation, {**self.evaluation, **section.tests_with, **overrides}, f"evaluation (variant {variant})"
        )
        if merged.get("checkpoint") == "best_on_test":
            merged["selection"] = evaluation
        if lies_in_file(merged["method"]):
            merged["file_sha256"] = method_file_digest(f"{where}.method", merged["method"])
        training = _chosen(section, merged, f"train (variant {variant})")
        return Recipe(training, evaluation)

    def trained_as(self, dataset: str, variant: str) -> str:
        """The variant whose model this one uses. Variants that differ only in evaluation share one training job.

        With two jobs, one would hold a GPU while it waits for the other. The variant with the fewest settings is
        trained. If another variant takes its place later, its job finds the trained model in the store.
        """
        training = self.recipe(dataset, variant).training
        same = [name for name in self.variants if self._has_training(dataset, name, training)]
        return min(same, key=lambda name: (len(self.variants[name]), name))

    def _has_training(self, dataset: str, variant: str, training: Training) -> bool:
        try:
            return self.recipe(dataset, variant).training == training
        except MaskrdError:  # a variant that is valid on other datasets only
            return False

    def trained_model(self, model: Model) -> Model:
        """The model whose weights this one is tested with."""
        return replace(model, variant=self.trained_as(model.dataset, model.variant))

    def view(self, name: str) -> View:
        """A table or figure of the configuration. Figures show the first seed only."""
        spec = self.tables.get(name) or self.figures[name]
        table = isinstance(spec, TableSpec)
        compared = table and spec.rows == "backbones"
        own = {name: self.variants[name]["backbone"] for name in spec.variants if "backbone" in self.variants[name]}
        recipes = {variant: self.recipe(spec.dataset, variant) for variant in spec.variants}
        return View(
            name=name,
            spec=spec,
            title=self.datasets[spec.dataset].title,
            layout=self.datasets[spec.dataset].layout,
            categories=self.datasets[spec.dataset].categories,
            backbones=self.backbones if compared else (self.backbone,),
            own_backbones={} if compared else own,
            seeds=self.seeds if table else self.seeds[:1],
            training={variant: recipe.training for variant, recipe in recipes.items()},
            evaluation={variant: recipe.evaluation for variant, recipe in recipes.items()},
        )


def _chosen(section: type[StrictData], values: dict[str, Any], where: str) -> Any:
    """The section with those of the values that belong to it."""
    return section.read(where, {key: value for key, value in values.items() if key in section.model_fields})
