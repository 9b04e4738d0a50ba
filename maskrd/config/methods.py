"""The methods by name: the settings that each adds to those of `Training`, and where its code is.

To add one, write its settings as a class here and name the class in `SETTINGS`. This file is read while a run is
planned, so it never imports torch: `implementation` names the code, which only the jobs import.
"""

from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag

from maskrd.config.external import maps_folder, result_files
from maskrd.config.messages import unknown_key
from maskrd.config.settings import (
    Count,
    Fraction,
    GradientTraining,
    Levels,
    NonNegative,
    Number,
    OnePassTraining,
    Training,
    canonical_json,
)
from maskrd.errors import MaskrdError
from maskrd.files import parse_json

ONE_MAP = {"score_layers": None}  # `tests_with` of methods whose map isn't a sum over levels


class MaskRDSettings(GradientTraining):
    """Masked reverse distillation, the paper's method. Without FMM, SCConv and SimAM it is reverse distillation."""

    implementation = "maskrd.methods.maskrd:MaskedReverseDistillation"

    method: Literal["maskrd"]
    layers: Levels
    msff_layers: Literal["all", "distilled"] = "all"
    loss: Literal["per_location", "flattened"]
    msff_channels: Annotated[int, Field(ge=16, multiple_of=16)] | Literal["teacher"] | None
    scconv: bool
    scconv_fusion: Literal["per_channel", "all_channels"]
    scconv_place: Literal["after_msff", "in_msff"] = "after_msff"
    sru_gate: Literal["hard", "soft"] = "hard"
    simam: bool
    fmm: bool
    fmm_place: Literal["outputs", "series"] = "outputs"
    mask_ratio: Fraction


class STPMSettings(GradientTraining):
    """Student-teacher feature pyramid matching."""

    implementation = "maskrd.methods.stpm:STPM"

    method: Literal["stpm"]
    layers: Levels


class MKDSettings(GradientTraining):
    """Multiresolution knowledge distillation."""

    implementation = "maskrd.methods.mkd:MKD"
    teacher_family = "VGG"
    scores = ("max", "mean", "loss")
    tests_with = ONE_MAP

    method: Literal["mkd"]
    mse_weight: NonNegative = 0.01


class MSFDSettings(GradientTraining):
    """Multi-scale feature distillation."""

    implementation = "maskrd.methods.msfd:MultiScaleFeatureDistillation"

    method: Literal["msfd"]
    layers: Levels
    cosine_weight: NonNegative = 1


class AsymmetricSettings(GradientTraining):
    """The asymmetric teacher-student network."""

    implementation = "maskrd.methods.asymmetric:AsymmetricStudent"

    method: Literal["asymmetric"]
    layers: Levels
    teacher_norm: Literal["frozen", "moving_average"] = "frozen"
    teacher_norm_momentum: Fraction = 0.9
    teacher_norm_passes: Count = 10

    @property
    def teacher_passes(self) -> int:
        return self.teacher_norm_passes if self.teacher_norm == "moving_average" else 0


class PaDiMSettings(OnePassTraining):
    """Patch distribution modelling: a Gaussian at every position."""

    implementation = "maskrd.methods.padim:PaDiM"
    tests_with = ONE_MAP

    method: Literal["padim"]
    embedding_layers: Levels = (1, 2, 3)
    embedding_channels: Count | Literal["teacher"] = "teacher"  # of all levels, chosen at random


class PatchCoreSettings(OnePassTraining):
    """A memory of normal patches."""

    implementation = "maskrd.methods.patchcore:PatchCore"
    scores = ("max", "mean", "reweighted")
    tests_with = ONE_MAP

    method: Literal["patchcore"]
    embedding_layers: Levels = (2, 3)
    coreset_fraction: Annotated[Number, Field(gt=0, le=1)] = 0.1  # of all patches, kept in the memory
    projection: Count = 128  # dimensions in which the coreset is chosen
    neighbours: Count = 9  # in the memory, for `score: reweighted`


class ExternalSettings(OnePassTraining):
    """Results made elsewhere: `maps` is the folder of a {category}'s anomaly maps. They are not blurred."""

    implementation = "maskrd.methods.external:External"
    teacher_family = None
    feature_passes = 0
    tests_with: ClassVar[dict[str, Any]] = {"blur_sigma": 0, **ONE_MAP}

    method: Literal["external"]
    maps: Annotated[str, StringConstraints(pattern=r"\{category\}")]

    def files_read(self, category: str) -> list[Path]:
        return result_files(maps_folder(self.maps, category))


class FileSettings(GradientTraining):
    """A method in the user's own file, named as path:Class. `settings` may hold anything; the class reads it.

    A subclass of `OnePassMethod` ignores the settings of gradients. `Experiment.recipe` sets `file_sha256`, so a
    changed file makes another model.
    """

    teacher_family = None

    method: Annotated[str, Field(pattern=r"\.py:[A-Za-z_]\w*$")]
    settings: dict[str, Any] = Field(default_factory=dict)
    file_sha256: str

    def __hash__(self) -> int:
        return hash(canonical_json(self))  # a mapping has no hash of its own


SETTINGS = (
    MaskRDSettings,
    STPMSettings,
    MKDSettings,
    MSFDSettings,
    AsymmetricSettings,
    PaDiMSettings,
    PatchCoreSettings,
    ExternalSettings,
)
METHODS: dict[str, type[Training]] = {
    get_args(settings.model_fields["method"].annotation)[0]: settings for settings in SETTINGS
}


def lies_in_file(method: Any) -> bool:
    """Whether a method's name is path:Class."""
    return isinstance(method, str) and ":" in method


def _tag_of(values: Any) -> str | None:
    # A damaged record may hold anything here. Pydantic shows it in its message.
    method = values.get("method") if isinstance(values, dict) else getattr(values, "method", None)
    if lies_in_file(method):
        return "file"
    return method if isinstance(method, str) else None


# The settings of any method; `method` says which.
AnyTraining = Annotated[
    reduce(or_, (Annotated[settings, Tag(name)] for name, settings in {**METHODS, "file": FileSettings}.items())),
    Discriminator(_tag_of),
]


def settings_class(where: str, method: Any) -> type[Training]:
    """The settings of a method. Raises MaskrdError for a name that no method has; the message begins with `where`."""
    if method is None:
        raise MaskrdError(f"{where}: missing. Give it a value; config.yaml has one.")
    if lies_in_file(method):
        return FileSettings
    if not isinstance(method, str) or method not in METHODS:
        raise MaskrdError(unknown_key(where, str(method), METHODS))
    return METHODS[method]


def all_setting_names() -> list[str]:
    """Every key that `train` may hold: those of all methods."""
    return list(dict.fromkeys(key for settings in METHODS.values() for key in setting_names(settings)))


def setting_names(settings: type[Training]) -> list[str]:
    """The keys that a user may set; the others are set by `Experiment.recipe` alone."""
    return [key for key in settings.model_fields if key not in ("selection", "file_sha256")]


def foreign_key(where: str, key: str, method: str, known: list[str]) -> str:
    """One line on a key that the settings of `method` don't have."""
    owners = [name for name, settings in METHODS.items() if key in setting_names(settings)]
    if owners:
        return f"{where}: {key!r} is a setting of {', '.join(owners)}, but not of method {method}. Remove it."
    return unknown_key(where, key, known)


def parse_training(where: str, text: str) -> Training:
    """The settings of any method from JSON. Jobs get them on their command line."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise MaskrdError(f"{where}: not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise MaskrdError(f"{where}: not a mapping (value: {values!r}).")
    return settings_class(f"{where}.method", values.get("method")).read(where, values)


def _without_foreign_settings(values: Any) -> Any:
    """Leave out other methods' settings: models of earlier versions record the settings of all methods."""
    if not isinstance(values, dict) or values.get("method") not in METHODS:
        return values
    foreign = set(all_setting_names()) - set(METHODS[values["method"]].model_fields)
    return {key: value for key, value in values.items() if key not in foreign}


# The settings that a finished model records.
RecordedTraining = Annotated[AnyTraining, BeforeValidator(_without_foreign_settings)]
