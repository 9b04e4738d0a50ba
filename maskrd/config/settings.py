"""The sections of configurations and recipes.

Every job parses them, so this file imports nothing heavier than pydantic.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from maskrd.config.messages import describe_wrong_keys, unknown_word
from maskrd.config.teachers import ARCHITECTURES
from maskrd.data.registry import LAYOUTS
from maskrd.errors import MaskrdError

Metric = Literal[
    "image_auroc",
    "image_ap",
    "image_f1max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1max",
    "aupro",
    "pro_per_image",
    "pro_200_thresholds",
    "pro_rescaled",
]
PAPER_BACKBONE = "wide_resnet50_2"
FULL_METHOD = "maskrd"  # the variant that others are compared with
SHOWN_IMAGES = 8  # a test keeps at least so many defective images, of as many defect types as possible

ALL = "all"  # instead of a list of categories

# Names become folders and words of a command line, so only harmless characters are allowed.
CATEGORY_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
UserFile = Annotated[str, AfterValidator(os.path.expanduser)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
NonNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=32, multiple_of=32)]
Level = Annotated[int, Field(ge=1, le=3)]


def refuse_repeats(values: tuple) -> tuple:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} is there more than once. Remove the repetition")
    return values


def sorted_tuple(values: tuple) -> tuple:
    return tuple(sorted(values))


def folder_of_its_own(path: Path) -> Path:
    """Check the folder of results: it must not hold other files, and its name goes into rules and command lines."""
    if path == Path():
        raise ValueError("this is the working folder itself. Name a folder in it, such as results")
    if str(path).startswith("-"):
        raise ValueError("a name with a dash in front looks like an option. Choose another name")
    if set("{}") & set(str(path)):
        raise ValueError("Snakemake reads braces as wildcards. Choose a name without braces")
    for folder in (path, *path.parents):
        if os.path.isfile(folder):  # noqa: PTH113 (Path.is_file raises where we may not look)
            raise ValueError(f"{folder} is a file. Name a folder")
    return path


def known_backbone(name: str) -> str:
    if name not in ARCHITECTURES:
        raise ValueError(unknown_word(name, ARCHITECTURES))
    return name


def not_a_mean(name: str) -> str:
    if name.lower() == "mean":
        raise ValueError("the last line of every table has this name. Rename the category")
    return name


def known_layout(name: str) -> str:
    if name not in LAYOUTS:
        raise ValueError(unknown_word(name, LAYOUTS))
    return name


Category = Annotated[str, StringConstraints(pattern=f"^{CATEGORY_NAME}$"), AfterValidator(not_a_mean)]


def all_or_names(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Accept `all` without a check. A union of types would print every message twice."""
    return value if value == ALL else check(value)


ResultsPath = Annotated[UserPath, AfterValidator(folder_of_its_own)]
Backbone = Annotated[str, AfterValidator(known_backbone)]
Distinct = AfterValidator(refuse_repeats)
Names = Annotated[tuple[Category, ...], Field(min_length=1), Distinct]
Categories = Annotated[Names, WrapValidator(all_or_names, json_schema_input_type=Names | Literal["all"])]
Levels = Annotated[tuple[Level, ...], Field(min_length=1), Distinct, AfterValidator(sorted_tuple)]
Variants = Annotated[tuple[Identifier, ...], Field(min_length=1), Distinct]


class StrictData(BaseModel):
    """Data from outside, such as a section of the configuration: unknown keys are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, where: str, text: str) -> Self:
        """Read it from JSON. Jobs get sections of the configuration on their command line."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise MaskrdError(describe_wrong_keys(error, cls, where)) from None

    @classmethod
    def read(cls, where: str, values: dict[str, Any]) -> Self:
        """Check a mapping. Raises MaskrdError with one line for each wrong key; each line begins with `where`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise MaskrdError(describe_wrong_keys(error, cls, where)) from None


def canonical_json(data: StrictData) -> str:
    """The data as JSON with sorted keys. Snakemake compares parameters as text: another order must not retrain."""
    return json.dumps(data.model_dump(mode="json", exclude_defaults=True), sort_keys=True)


class Evaluation(StrictData):
    """Settings of testing: they change the metrics, never the model."""

    score: Literal["max", "mean", "loss", "reweighted"]
    blur_sigma: NonNegative
    mask_at_test: bool
    map_fusion: Literal["sum", "product", "weighted"] = "sum"
    map_weights: tuple[NonNegative, NonNegative, NonNegative] = (1, 1, 1)
    upsampling_std: Positive = 12
    score_layers: Levels | None = None
    defect_pixels: Literal["half", "any"] = "half"
    false_alarm_rate: Fraction = 0.05

    @property
    def mask_threshold(self) -> float:
        """A pixel of a resized mask is a defect if its grey value (0 to 255) is above this."""
        return 0 if self.defect_pixels == "any" else 127.5


class Training(StrictData):
    """The settings that every method has. Another value of any of them makes another model.

    Each method has a subclass with settings of its own (`config/methods.py`). config.yaml gives the reason for each
    value. A key that is added later gets a default here: the behaviour before the key existed. Recipes leave a key out
    at its default, so a new key retrains nothing.
    """

    implementation: ClassVar[str]  # "module:class"
    teacher_family: ClassVar[Literal["ResNet", "VGG"] | None] = "ResNet"  # None: any
    scores: ClassVar[tuple[str, ...]] = ("max", "mean")  # values of `score` that the method supports
    tests_with: ClassVar[dict[str, Any]] = {}  # settings of testing that replace those of `evaluation`
    leaks: ClassVar[bool] = False  # whether test images help to choose the weights
    teacher_passes: ClassVar[int] = 0  # passes over the training images before the student starts
    feature_passes: ClassVar[int]  # how often it asks for each image's features; if they are kept, one is computed

    method: str
    image_size: Pixels
    crop: Pixels | None = None
    normalize: bool = True
    precision: Literal["fp32", "bf16", "auto"]

    def files_read(self, category: str) -> list[Path]:
        """Files that the model of a category depends on, other than its images and the teacher."""
        return []

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop and self.crop > self.image_size:
            raise ValueError(f"crop {self.crop} is larger than image_size {self.image_size}")
        return self


class GradientTraining(Training):
    """The settings of methods that learn in epochs from the gradient of a loss."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    optimizer: Literal["adam", "sgd"] = "adam"
    betas: tuple[Fraction, Fraction]
    momentum: Fraction = 0.9
    weight_decay: NonNegative
    validation_fraction: Fraction
    patience: Count | None
    checkpoint: Literal["last", "best_validation", "best_on_test"]
    # How test images choose the checkpoint. `Experiment.recipe` sets it; users can't.
    selection: Evaluation | None = None

    @model_validator(mode="after")
    def _validation_needs_images(self) -> Self:
        if (self.patience or self.checkpoint == "best_validation") and not self.validation_fraction:
            raise ValueError(
                "patience and checkpoint: best_validation need held-out images. Set validation_fraction above 0, "
                "the share of normal training images to hold out"
            )
        return self

    @model_validator(mode="after")
    def _selection_is_that_of_the_checkpoint(self) -> Self:
        if self.leaks != (self.selection is not None):
            raise ValueError("selection belongs to checkpoint: best_on_test, which sets it. Remove it")
        if self.leaks and self.patience:
            raise ValueError("patience needs a validation loss, and best_on_test has none. Set patience: null")
        return self

    @property
    def feature_passes(self) -> int:
        return self.epochs

    @property
    def leaks(self) -> bool:
        """Whether test images help to choose the weights. Then the metrics say nothing about other images."""
        return self.checkpoint == "best_on_test"


class OnePassTraining(Training):
    """The settings of methods that learn without a gradient, from the teacher's features alone."""

    epochs: ClassVar[int] = 1
    feature_passes: ClassVar[int] = 2
    batch_size: ClassVar[int] = 16  # images that the teacher takes at a time
    validation_fraction: ClassVar[float] = 0


def held_out_count(images: int, fraction: float) -> int:
    """How many of the normal training images are held out, by `validation_fraction`."""
    return round(images * fraction)


class Dataset(StrictData):
    """Where a dataset is, and the settings that its models have instead of those of `train`.

    `layout` says how its files are arranged, and `title` is the name that readers see. Datasets that the code knows
    have both. `categories` are names, or `all` for every category in its folder. `stands_for` names another dataset,
    which this one replaces in every table and figure.
    """

    layout: Annotated[str, AfterValidator(known_layout)] | None = None
    title: str | None = None
    stands_for: Identifier | None = None
    path: UserPath | None = None
    archive: UserFile | None = None
    categories: Categories
    image_size: Pixels | None = None
    epochs: Count | None = None
    score: Literal["max", "mean"] | None = None

    overriding: ClassVar[tuple[str, ...]] = ("image_size", "epochs", "score")

    def overrides(self) -> dict[str, Any]:
        values = {key: getattr(self, key) for key in self.overriding}
        return {key: value for key, value in values.items() if value is not None}


class TableSpec(StrictData):
    """A table of `rows` and metrics, on one dataset.

    `costs` adds columns: parameters, seconds of training, frames per second.
    """

    dataset: Identifier
    rows: Literal["categories", "variants", "backbones"]
    variants: Variants = (FULL_METHOD,)
    metrics: Annotated[tuple[Metric, ...], Field(min_length=1), Distinct]
    costs: bool = False
    caption: str
    note: str = ""
    leak: bool = False  # whether variants with checkpoint: best_on_test may be shown

    @model_validator(mode="after")
    def _one_thing_is_compared(self) -> Self:
        if self.costs and self.rows != "variants":
            raise ValueError("costs: true needs rows: variants. Change one of the two")
        if self.rows == "backbones" and len(self.variants) > 1:
            raise ValueError("rows: backbones compares backbones of one variant. Name one, or use rows: variants")
        return self


class FigureSpec(StrictData):
    """Test images, each with the anomaly maps of several variants."""

    dataset: Identifier
    variants: Variants = (FULL_METHOD,)
    images_per_category: Annotated[int, Field(ge=1, le=SHOWN_IMAGES)] = 1
    caption: str


@dataclass(frozen=True, order=True)
class Model:
    """One trained model. Its fields make its path."""

    dataset: str
    category: str
    variant: str
    backbone: str
    seed: int

    @property
    def path(self) -> str:
        return f"{self.dataset}/{self.category}/{self.variant}/{self.backbone}/seed{self.seed}"

    @classmethod
    def of_path(cls, path: str) -> Self:
        """The model of a `path`."""
        *names, seed = path.split("/")
        return cls(*names, int(seed.removeprefix("seed")))

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The model that a file belongs to. The file is in the model's folder."""
        return cls.of_path("/".join(path.parts[-6:-1]))
