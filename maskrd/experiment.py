"""What config.yaml means: recipes, models and the cells of tables.

Every job parses this, so it imports nothing heavier than pydantic.
"""

import difflib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from maskrd.errors import MaskrdError

Metric = Literal["image_auroc", "pixel_auroc", "aupro", "pro_per_image", "pro_200_thresholds"]
DatasetName = Literal["mvtec_ad", "cifar10", "mtd", "stc", "demo", "digits"]
Backbone = Literal[
    "resnet18", "resnet50", "wide_resnet50_2", "vgg16",
    "demo_resnet18", "demo_resnet50", "demo_wide_resnet50_2", "demo_vgg16",
]  # fmt: skip
PAPER_BACKBONE = "wide_resnet50_2"
GENERATED_DATASETS = ("demo", "digits")  # made here rather than downloaded

# Names become folders and words of a command line; nothing else may get in.
Category = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
UserFile = Annotated[str, AfterValidator(os.path.expanduser)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Level = Annotated[int, Field(ge=1, le=3)]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DIGITS_CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DEMO_CATEGORIES = ("weave", "washer")
STC_SCENES = tuple(f"{number:02d}" for number in range(1, 14))
KNOWN_CATEGORIES = {
    "cifar10": CIFAR10_CLASSES,
    "demo": DEMO_CATEGORIES,
    "digits": DIGITS_CLASSES,
    "mtd": ("tile",),
    "stc": (*STC_SCENES, "all"),
}


def refuse_repeats(values: tuple) -> tuple:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"names {', '.join(repeated)} more than once")
    return values


def sorted_tuple(values: tuple) -> tuple:
    return tuple(sorted(values))


Distinct = AfterValidator(refuse_repeats)
Levels = Annotated[tuple[Level, ...], Field(min_length=1), Distinct, AfterValidator(sorted_tuple)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, where: str, text: str) -> Self:
        """Read a section from JSON, as jobs get it on their command line."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise MaskrdError(explain(error, cls, where)) from None


class Evaluation(Section):
    """Settings of testing: they change the metrics, never the model."""

    score: Literal["max", "mean", "loss"]
    blur_sigma: Annotated[float, Field(ge=0)]
    mask_at_test: bool
    map_fusion: Literal["sum", "product", "weighted"] = "sum"
    map_weights: tuple[Weight, Weight, Weight] = (1, 1, 1)
    upsampling_std: Annotated[float, Field(gt=0)] = 12
    score_layers: Levels | None = None


class Training(Section):
    """Settings that make a different model; config.yaml says why each has its value there.

    A key that is added later has a default here, the behaviour before it: recipes leave it out at that
    value, so that it retrains nothing.
    """

    method: Literal["maskrd", "stpm", "mkd", "msfd", "asymmetric"]
    image_size: Annotated[int, Field(ge=32, multiple_of=32)]
    crop: Annotated[int, Field(ge=32, multiple_of=32)] | None = None
    normalize: bool = True
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)]
    optimizer: Literal["adam", "sgd"] = "adam"
    betas: tuple[Fraction, Fraction]
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)]
    validation_fraction: Fraction
    patience: Annotated[int, Field(ge=1)] | None
    checkpoint: Literal["last", "best_validation", "best_on_test"]
    precision: Literal["fp32", "bf16", "auto"]
    layers: Levels
    loss: Literal["per_location", "flattened"]
    msff_channels: Annotated[int, Field(ge=16, multiple_of=16)] | Literal["teacher"] | None
    scconv: bool
    scconv_fusion: Literal["per_channel", "all_channels"]
    simam: bool
    fmm: bool
    mask_ratio: Fraction
    mse_weight: Annotated[float, Field(ge=0)] = 0.01
    cosine_weight: Annotated[float, Field(ge=0)] = 1
    teacher_norm: Literal["frozen", "moving_average"] = "frozen"
    teacher_norm_momentum: Fraction = 0.9
    teacher_norm_passes: Annotated[int, Field(ge=1)] = 10
    msff_layers: Literal["all", "distilled"] = "all"
    # How test images choose the checkpoint; set by `Experiment.recipe`, never by hand.
    selection: Evaluation | None = None

    @model_validator(mode="after")
    def _validation_needs_images(self) -> "Training":
        if (self.patience or self.checkpoint == "best_validation") and not self.validation_fraction:
            raise ValueError(
                "patience and checkpoint: best_validation need validation_fraction above 0, "
                "the share of normal training images to hold out"
            )
        if self.crop and self.crop > self.image_size:
            raise ValueError(f"crop {self.crop} is larger than image_size {self.image_size}")
        return self

    @model_validator(mode="after")
    def _selection_is_that_of_the_checkpoint(self) -> "Training":
        if self.leaks != (self.selection is not None):
            raise ValueError("selection says how test images are scored for checkpoint: best_on_test, and nothing else")
        if self.leaks and self.patience:
            raise ValueError("patience needs a validation loss, best_on_test compares test scores; set patience: null")
        return self

    @property
    def leaks(self) -> bool:
        """Test images had a say in the weights: the metrics are no estimate for other images."""
        return self.checkpoint == "best_on_test"


# Settings that only some methods read. Elsewhere they stay as config.yaml has them, lest they make another model.
READ_BY = {
    "layers": ("maskrd", "stpm", "msfd", "asymmetric"),
    **dict.fromkeys(("loss", "msff_channels", "msff_layers", "scconv", "scconv_fusion", "simam"), ("maskrd",)),
    **dict.fromkeys(("fmm", "mask_ratio"), ("maskrd",)),
    "mse_weight": ("mkd",),
    "cosine_weight": ("msfd",),
    **dict.fromkeys(("teacher_norm", "teacher_norm_momentum", "teacher_norm_passes"), ("asymmetric",)),
}


@dataclass(frozen=True)
class Recipe:
    """All that decides the numbers of one model, but for its data, teacher and seed."""

    training: Training
    evaluation: Evaluation

    def training_json(self) -> str:
        return canonical_json(self.training)

    def evaluation_json(self) -> str:
        return canonical_json(self.evaluation)


def canonical_json(section: Section) -> str:
    """Sorted keys: Snakemake compares parameters as text, and a swapped key must not retrain."""
    return json.dumps(section.model_dump(mode="json", exclude_defaults=True), sort_keys=True)


class Dataset(Section):
    path: UserPath | None = None
    archive: UserFile | None = None
    categories: Annotated[tuple[Category, ...], Field(min_length=1), Distinct]
    image_size: int | None = None
    epochs: int | None = None
    score: Literal["max", "mean"] | None = None

    def overrides(self) -> dict[str, Any]:
        keys = {"image_size": self.image_size, "epochs": self.epochs, "score": self.score}
        return {key: value for key, value in keys.items() if value is not None}


class Table(Section):
    """A list of cells: `rows` against metrics, on one dataset.

    `costs` adds what the variants cost: parameters, seconds of training, frames per second.
    """

    dataset: DatasetName
    rows: Literal["categories", "variants", "backbones"]
    variants: Annotated[tuple[Identifier, ...], Field(min_length=1)] = ("maskrd",)
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)]
    costs: bool = False
    caption: str
    note: str = ""
    leak: bool = False  # whether variants with checkpoint: best_on_test may be shown

    @model_validator(mode="after")
    def _one_thing_is_compared(self) -> Self:
        if self.costs and self.rows != "variants":
            raise ValueError("costs: true is for rows: variants")
        if self.rows == "backbones" and len(self.variants) > 1:
            raise ValueError("rows: backbones compares backbones of one variant; name one, or use rows: variants")
        return self


class Figure(Section):
    dataset: DatasetName
    variants: Annotated[tuple[Identifier, ...], Field(min_length=1)] = ("maskrd",)
    images_per_category: Annotated[int, Field(ge=1)] = 1
    caption: str


class Report(Section):
    """All that a table or figure is made of besides its models' files; a job gets it as JSON."""

    name: str
    spec: Table | Figure
    categories: tuple[Category, ...]
    backbones: tuple[Backbone, ...]
    own_backbones: dict[Identifier, Backbone] = {}
    seeds: tuple[int, ...]
    training: dict[str, Training]
    evaluation: dict[str, Evaluation]

    def models(self) -> "Iterator[Model]":
        """The models that are read, in the order of variants, backbones, categories, seeds."""
        for variant in self.spec.variants:
            for backbone in self.backbones_of(variant):
                for category in self.categories:
                    for seed in self.seeds:
                        yield Model(self.spec.dataset, category, variant, backbone, seed)

    def backbones_of(self, variant: str) -> tuple[Backbone, ...]:
        """Those that the report compares, or else the variant's own, or else that of the report."""
        return (self.own_backbones[variant],) if variant in self.own_backbones else self.backbones


@dataclass(frozen=True, order=True)
class Model:
    """One trained model; its fields are its path."""

    dataset: str
    category: str
    variant: str
    backbone: str
    seed: int

    @property
    def path(self) -> str:
        return f"{self.dataset}/{self.category}/{self.variant}/{self.backbone}/seed{self.seed}"

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The model that a file in its folder belongs to."""
        *names, seed = path.parts[-6:-1]
        return cls(*names, int(seed.removeprefix("seed")))


class Experiment(Section):
    """The whole configuration."""

    results: UserPath
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), Distinct]
    backbones: Annotated[tuple[Backbone, ...], Field(min_length=1), Distinct]
    device: Literal["auto", "cpu", "cuda"]
    partial: bool
    sources: UserPath
    datasets: dict[DatasetName, Dataset]
    weights: dict[Backbone, UserFile | None]
    train: dict[str, Any]
    evaluation: dict[str, Any]
    variants: dict[Identifier, dict[str, Any]]
    tables: dict[Identifier, Table]
    figures: dict[Identifier, Figure]

    _recipes: dict[tuple[str, str], Recipe] = PrivateAttr(default_factory=dict)
    _unread: dict[str, Any] = PrivateAttr(default_factory=dict)  # what a method doesn't read has these values

    @classmethod
    def load(cls, config: dict[str, Any], defaults: dict[str, Any] | None = None) -> "Experiment":
        """Validate a configuration as Snakemake merged it; `defaults` is config.yaml as it is without other files.

        Raises MaskrdError with one line for each wrong key: its name, its value and the remedy.
        """
        try:
            experiment = cls.model_validate(nulls_read(config))
        except ValidationError as error:
            raise MaskrdError(explain(error, cls, "config")) from None
        shipped = nulls_read(defaults or config)
        experiment._unread = {key: value for key, value in shipped["train"].items() if key in READ_BY}
        experiment._check_references()
        experiment._check_recipes(shipped)
        experiment._check_backbones()
        experiment._check_leaks()
        experiment._check_downloaded_categories(shipped["datasets"]["mvtec_ad"]["categories"])
        return experiment

    def __copy__(self) -> Self:
        """For `model_copy`: other values make other recipes."""
        copied = super().__copy__()
        copied._recipes = {}
        return copied

    @property
    def backbone(self) -> str:
        """The backbone of every table and figure that doesn't compare backbones, for variants without their own."""
        return self.backbones[-1]

    @property
    def used_backbones(self) -> tuple[Backbone, ...]:
        """All that a model may be trained with: the configured ones and the variants' own."""
        own = [variant["backbone"] for variant in self.variants.values() if "backbone" in variant]
        return tuple(dict.fromkeys([*self.backbones, *own]))

    def recipe(self, dataset: str, variant: str) -> Recipe:
        """The sections `train` and `evaluation`, then the dataset's overrides, then the variant's."""
        if (dataset, variant) not in self._recipes:
            self._recipes[dataset, variant] = self._merged_recipe(dataset, variant)
        return self._recipes[dataset, variant]

    def _merged_recipe(self, dataset: str, variant: str) -> Recipe:
        overrides = {**self.datasets[dataset].overrides(), **self.variants[variant]}
        overrides.pop("backbone", None)  # which teacher, not what is done with it
        known = [key for section in (Training, Evaluation) for key in section.model_fields if key != "selection"]
        unknown = set(overrides) - set(known)
        if unknown:
            raise MaskrdError("\n".join(unknown_key(f"variants.{variant}", key, known) for key in sorted(unknown)))
        evaluation = self._merge(Evaluation, self.evaluation, overrides, f"evaluation (variant {variant})")
        if {**self.train, **overrides}.get("checkpoint") == "best_on_test":
            overrides["selection"] = evaluation
        training = self._merge(Training, self.train, overrides, f"train (variant {variant})")
        unread = {key: value for key, value in self._unread.items() if training.method not in READ_BY[key]}
        training = self._merge(Training, training.model_dump(), unread, f"train (variant {variant})")
        if evaluation.score == "loss" and training.method != "mkd":
            raise MaskrdError(
                f"variants.{variant}: score: loss is for method: mkd; {training.method} has scores max and mean."
            )
        scored = set(evaluation.score_layers or ())
        if scored and (training.method == "mkd" or not scored <= set(training.layers)):
            has = "mkd has no map of a single level" if training.method == "mkd" else f"layers are {training.layers}"
            raise MaskrdError(f"variants.{variant}: score_layers {evaluation.score_layers} can't be scored: {has}.")
        return Recipe(training, evaluation)

    @staticmethod
    def _merge(section: type[Section], base: dict, overrides: dict, where: str) -> Any:
        chosen = {key: value for key, value in overrides.items() if key in section.model_fields}
        try:
            return section.model_validate({**base, **chosen})
        except ValidationError as error:
            raise MaskrdError(explain(error, section, where)) from None

    def trained_as(self, dataset: str, variant: str) -> str:
        """The variant whose model this one uses: variants that differ in evaluation only share one.

        A variant that a file adds must not take over the model of one that was there: one without any difference
        comes first (maskrd); of names that continue another's
        (stpm_blurred, stpm) that other counts, else the one with the fewest settings of evaluation. The order of the
        configuration says nothing, since it changes with every merged file.
        """
        training = self.recipe(dataset, variant).training
        same = [name for name in self.variants if self.recipe(dataset, name).training == training]

        def continues(name: str) -> bool:
            return any(name.startswith(f"{other}_") for other in same)

        def settings_of_evaluation(name: str) -> int:
            return len(set(self.variants[name]) & set(Evaluation.model_fields))

        return min(
            same, key=lambda name: (bool(self.variants[name]), continues(name), settings_of_evaluation(name), name)
        )

    def trained_model(self, model: Model) -> Model:
        """The model whose weights this one is tested with."""
        return replace(model, variant=self.trained_as(model.dataset, model.variant))

    def report(self, name: str) -> Report:
        """A table or figure of the configuration. Figures show the first seed only."""
        spec = self.tables.get(name) or self.figures[name]
        table = isinstance(spec, Table)
        compared = table and spec.rows == "backbones"
        own = {name: self.variants[name]["backbone"] for name in spec.variants if "backbone" in self.variants[name]}
        recipes = {variant: self.recipe(spec.dataset, variant) for variant in spec.variants}
        return Report(
            name=name,
            spec=spec,
            categories=self.datasets[spec.dataset].categories,
            backbones=self.backbones if compared else (self.backbone,),
            own_backbones={} if compared else own,
            seeds=self.seeds if table else self.seeds[:1],
            training={variant: recipe.training for variant, recipe in recipes.items()},
            evaluation={variant: recipe.evaluation for variant, recipe in recipes.items()},
        )

    def _check_references(self) -> None:
        for kind, entries in (("tables", self.tables), ("figures", self.figures)):
            for name, entry in entries.items():
                if entry.dataset not in self.datasets:
                    raise MaskrdError(unknown_key(f"{kind}.{name}.dataset", entry.dataset, list(self.datasets)))
                if entry.dataset == "stc" and not self.datasets["stc"].path:
                    raise MaskrdError(
                        f"datasets.stc.path: {kind}.{name} needs it. ShanghaiTech Campus can't be downloaded by the "
                        "pipeline; name a folder in the layout of docs/data.md."
                    )
                for variant in entry.variants:
                    if variant not in self.variants:
                        where = f"{kind}.{name}.variants"
                        raise MaskrdError(unknown_key(where, variant, list(self.variants)))
        for variant, difference in self.variants.items():
            if difference.get("backbone", self.backbone) not in get_args(Backbone):
                where = f"variants.{variant}.backbone"
                raise MaskrdError(unknown_key(where, str(difference["backbone"]), list(get_args(Backbone))))
        for name, known in KNOWN_CATEGORIES.items():
            for category in self.datasets[name].categories if name in self.datasets else ():
                if category not in known:
                    raise MaskrdError(unknown_key(f"datasets.{name}.categories", category, list(known)))
        for name in self.tables:
            if name.endswith("_paired"):
                raise MaskrdError(f"tables.{name}: files with this ending hold paired differences. Take another name.")

    def _check_downloaded_categories(self, known: list[str]) -> None:
        """A misspelt one must not be noticed after gigabytes."""
        mvtec = self.datasets.get("mvtec_ad")
        for category in mvtec.categories if mvtec and not (mvtec.path or mvtec.archive) else ():
            if category not in known:
                problem = unknown_key("datasets.mvtec_ad.categories", category, known)
                raise MaskrdError(f"{problem} Categories of your own need datasets.mvtec_ad.path.")

    def _check_recipes(self, shipped: dict[str, Any]) -> None:
        """Two names for one recipe are a mistake, most often a key that repeats its default.

        But not where the user's `train` or `evaluation` has just become what a variant stands for: these two then
        share one model.
        """
        before = self.model_copy(update={name: shipped[name] for name in ("train", "evaluation")})
        seen: dict[tuple[Recipe | str, ...], str] = {}
        for variant, difference in self.variants.items():
            recipes = (self.recipe(dataset, variant) for dataset in self.datasets)
            other = seen.setdefault((difference.get("backbone", self.backbone), *recipes), variant)
            if other != variant and before._equal(variant, other):
                raise MaskrdError(
                    f"variants.{variant} and variants.{other} are the same recipe: every number would be made twice. "
                    f"Remove one, or use the name {other} in the tables. If config.yaml itself was changed to what one "
                    "of them stands for, give that one another difference, such as the value before."
                )

    def _equal(self, variant: str, other: str) -> bool:
        try:
            return all(self.recipe(dataset, variant) == self.recipe(dataset, other) for dataset in self.datasets)
        except MaskrdError:  # a difference that only the user's own `train` allows
            return False

    def _check_backbones(self) -> None:
        """MKD reads a VGG, every other method a ResNet."""
        for name in (*self.tables, *self.figures):
            report = self.report(name)
            for variant, training in report.training.items():
                for backbone in report.backbones_of(variant):
                    if ("vgg" in backbone) != (training.method == "mkd"):
                        family = "VGG" if training.method == "mkd" else "ResNet"
                        raise MaskrdError(
                            f"{name}: variant {variant} (method {training.method}) needs a {family} and would get "
                            f"{backbone}. Set variants.{variant}.backbone; a table of backbones takes `backbones`."
                        )

    def _check_leaks(self) -> None:
        """A number that test images had a say in gets into no table by accident."""
        for name in (*self.tables, *self.figures):
            report = self.report(name)
            leaking = [variant for variant, training in report.training.items() if training.leaks]
            if leaking and not getattr(report.spec, "leak", False):
                raise MaskrdError(
                    f"{name}: variant {leaking[0]} has checkpoint: best_on_test, a leak: the test images choose its "
                    "weights, so its numbers are no estimate for other images. Leave it out; only a table that is "
                    "meant to show how much such numbers gain may have it, and says so by `leak: true`."
                )


def held_out_count(images: int, fraction: float) -> int:
    """How many of so many normal training images are validated on instead of trained on (`validation_fraction`)."""
    return round(images * fraction)


def nulls_read(value: Any) -> Any:
    """`value` with null for the text "null": what stands below a key of `--config` arrives as text."""
    if isinstance(value, dict):
        return {key: nulls_read(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [nulls_read(entry) for entry in value]
    return None if value == "null" else value


def unknown_key(where: str, key: str, known: list[str]) -> str:
    name, colon, value = key.partition(":")
    if colon and name in known:
        return f"{where}: unknown {key!r}. A space must follow the colon: {name}: {value}"
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
    return f"{where}: unknown {key!r}. {hint}"


def explain(error: ValidationError, section: type[BaseModel], where: str) -> str:
    """One line for each wrong key of a configuration."""
    nested = {"datasets": Dataset, "tables": Table, "figures": Figure, "selection": Evaluation}
    lines = []
    for item in error.errors():
        *parents, key = item["loc"] or ("",)
        parent = ".".join(str(part) for part in (where, *parents))
        if item["type"] == "extra_forbidden":
            known = nested[parents[0]] if parents else section
            lines.append(unknown_key(parent, str(key), list(known.model_fields)))
        elif item["type"] == "missing":
            lines.append(f"{parent}.{key}: missing. Give it a value; config.yaml has one.")
        elif item["type"] == "tuple_type":
            lines.append(f"{parent}.{key}: not a list (value: {item['input']!r}). Write [{item['input']}].")
        elif item["type"] == "dict_type":
            lines.append(f"{parent}.{key}: not a mapping (value: {item['input']!r}). Write {{key: value}}.")
        else:
            lines.append(f"{parent}.{key}: {item['msg']} (value: {item['input']!r})".replace(".: ", ": "))
    return "\n".join(lines)
