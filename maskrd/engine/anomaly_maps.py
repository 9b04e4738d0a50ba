"""Anomaly maps as files, in the layout of MVTec's evaluation code: write ours, read those of others.

The folder of a category holds test/<defect>/<image>.tiff, one channel of floats, and scores.csv (image, score). The
names are those of the test images with another ending.
"""

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maskrd.config.external import IMAGE_SCORES, map_files, maps_folder
from maskrd.config.settings import Training
from maskrd.data.index_file import Entry, Index
from maskrd.data.samples import load_test
from maskrd.engine.evaluation import EvaluationJob, load_test_set, wanted_scorer
from maskrd.engine.inputs import Inputs, TrainingJob
from maskrd.engine.loop import Learned
from maskrd.engine.scoring import score_text
from maskrd.errors import MaskrdError
from maskrd.files import read_csv, replaced_folder, write_csv
from maskrd.methods.base import resize

NAMED = 5  # files in a message
LARGEST = float(np.finfo(np.float32).max)


def write_maps(job: EvaluationJob, folder: Path) -> None:
    """The blurred anomaly maps of the test set, float32, and its image scores.

    The map of a cropped image gets a margin of its lowest value, so that it covers the whole image. Raises MaskrdError
    for a folder of somebody else: that of the dataset has files of the same names.
    """
    samples = load_test_set(job)
    names = [map_name(entry) for entry in samples.entries]
    with replaced_folder(folder) as made:
        maps, scores = wanted_scorer(job).score_all(samples.images)
        for name, anomaly_map in zip(names, maps, strict=True):
            margin = (job.training.image_size - len(anomaly_map)) // 2
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.pad(anomaly_map, margin, constant_values=anomaly_map.min())).save(path)
        images = (entry.image for entry in samples.entries)
        write_csv(made / IMAGE_SCORES, ["image", "score"], zip(images, map(score_text, scores), strict=True))


def keep_maps(job: TrainingJob, inputs: Inputs) -> Learned:
    """Keep the maps of a category as a model: resized to `image_size`, and cropped like the images.

    Raises MaskrdError for missing maps, for maps without a test image, for maps that aren't a finite array of two
    dimensions, and for images that are missing in scores.csv, if there is one.
    """
    started, settings, index = time.monotonic(), job.recipe, Index.read(job.index)
    folder = maps_folder(settings.maps, index.category)
    refuse_other_names(folder, index)
    maps = torch.cat([read_map(folder / map_name(entry), settings) for entry in index.test])
    samples = load_test(index, job.data, settings.image_size, job.machine.threads).cropped(settings.crop)
    inputs.method.keep(samples.images, maps, read_scores(folder / IMAGE_SCORES, index.test))
    weights = inputs.method.state_dict()
    return Learned(weights, [], epochs=0, best_epoch=None, seconds=time.monotonic() - started)


def map_name(entry: Entry) -> str:
    """Raises MaskrdError for an image that has no file of its own."""
    if entry.in_large_file:
        raise MaskrdError(
            f"{entry.image}: this file holds many images, so their maps have no names. Anomaly maps as files need a "
            "dataset with a file for each image. Remove the dataset from the tables, or don't ask for its maps."
        )
    return str(Path(entry.image).with_suffix(".tiff"))


def refuse_other_names(folder: Path, index: Index) -> None:
    if not folder.is_dir():
        raise MaskrdError(f"{folder}: no such folder. Set variants.<name>.maps to the folder of the anomaly maps.")
    wanted = {map_name(entry) for entry in index.test}
    found = {path.relative_to(folder).as_posix() for path in map_files(folder)}
    problems = [
        f"{len(names)} maps {what} ({enumerate_some(names)})"
        for names, what in ((wanted - found, "are missing"), (found - wanted, "belong to no test image"))
        if names
    ]
    if problems:
        raise MaskrdError(
            f"{folder}: {'; '.join(problems)}. Each test image needs one map, test/<defect>/<image>.tiff."
        )


def read_map(path: Path, settings: Training) -> torch.Tensor:
    """A map, float32 (1, S, S), resized bilinearly to `image_size`, then cropped."""
    try:
        with Image.open(path, formats=["TIFF"]) as file:  # Pillow would also run PostScript through Ghostscript
            values = np.array(file)
    except Exception as error:  # on damaged files, Pillow raises nearly every type
        raise MaskrdError(f"{path}: can't be read as a TIFF of float32 ({error}). Write it again.") from None
    if values.ndim != 2 or not np.isfinite(values).all():
        raise MaskrdError(
            f"{path}: its shape is {values.shape}, and {np.count_nonzero(~np.isfinite(values))} values aren't finite. "
            "A map has one channel of finite numbers."
        )
    whole = torch.from_numpy(values.astype(np.float32))[None]
    size = settings.image_size
    if whole.shape[1:] != (size, size):
        whole = resize(whole, (size, size))
    margin = (size - (settings.crop or size)) // 2
    return whole[:, margin : size - margin, margin : size - margin].contiguous()


def read_scores(path: Path, entries: Iterable[Entry]) -> torch.Tensor:
    """The scores, float32 (N,), in the order of `entries`. Empty if there is no such file."""
    if not path.exists():
        return torch.empty(0)
    try:
        scores = {line["image"]: float(line["score"]) for line in read_csv(path)}
    except (KeyError, ValueError) as error:
        raise MaskrdError(f"{path}: needs a column image and a column score with numbers ({error!r}).") from None
    missing = [entry.image for entry in entries if not abs(scores.get(entry.image, np.nan)) <= LARGEST]
    if missing:
        raise MaskrdError(f"{path}: {len(missing)} test images have no finite score ({enumerate_some(missing)}).")
    return torch.tensor([scores[entry.image] for entry in entries], dtype=torch.float32)


def enumerate_some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:NAMED]) + (", ..." if len(ordered) > NAMED else "")
