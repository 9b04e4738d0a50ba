"""A model file: the tensors that a training learned, and its record. It is read by everything that scores images."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from maskrd.config.record import TrainingRecord
from maskrd.errors import MaskrdError, describe_fault
from maskrd.files import atomic_path
from maskrd.methods.teacher import tensors_sha256

RECORD, DIGEST = "model", "tensors"  # keys of the file's metadata


def write_model(path: Path, tensors: Mapping[str, Tensor], record: TrainingRecord) -> None:
    """`tensors` are contiguous and on the host."""
    metadata = {RECORD: record.model_dump_json(), DIGEST: tensors_sha256(tensors)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_training(model: Path) -> TrainingRecord:
    """The record of training in a model file. Raises MaskrdError if there is none, or not one of this pipeline."""
    if not model.is_file():
        raise MaskrdError(f"{model}: no such file. Name the model.safetensors of a trained model.")
    try:
        return TrainingRecord.model_validate_json(_read_metadata(model)[RECORD])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        remedy = "If it was one, delete it, and Snakemake trains it again."
        reason = describe_fault(error)
        raise MaskrdError(f"{model}: not a model.safetensors of this pipeline ({reason}). {remedy}") from None


def read_tensors(model: Path) -> dict[str, Tensor]:
    """The tensors of a model file, on the host. Files of earlier versions have no digest, so theirs aren't checked.

    Raises MaskrdError if they aren't those that were written, and SafetensorError for a damaged file.
    """
    tensors = load_file(model)
    written = _read_metadata(model).get(DIGEST)
    if written not in (None, tensors_sha256(tensors)):
        raise MaskrdError(
            f"{model}: its tensors changed since they were written. Delete it. Snakemake then takes the intact one "
            "from the store, or trains it again."
        )
    return tensors


def _read_metadata(model: Path) -> dict[str, str]:
    with safe_open(model, framework="pt") as file:
        return file.metadata() or {}
