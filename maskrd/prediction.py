"""A trained model on one's own images: scores and heatmaps."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from maskrd.colors import COLORMAP, OVERLAY, scaled
from maskrd.data.changes import IMAGE_SUFFIXES
from maskrd.data.index import load_image
from maskrd.data.samples import Samples
from maskrd.errors import MaskrdError
from maskrd.experiment import Evaluation
from maskrd.files import atomic_path, sha256_file, write_csv
from maskrd.scoring import Scorer, read_description, score_text


class Predictor(Scorer):
    """A model file, tested as its metrics.json says, and images from anywhere."""

    def __init__(self, model: Path, teacher: Path | None, device: str, threads: int, gpu_jobs: int = 1) -> None:
        description = read_description(model)
        teacher = teacher or teacher_beside(model, description["backbone"])
        if sha256_file(teacher) != description["teacher_sha256"]:
            raise MaskrdError(f"{teacher}: not the teacher that {model} was trained with. Give that one by --teacher.")
        super().__init__(model, teacher, evaluation_beside(model), device, threads, gpu_jobs)

    def load(self, paths: Sequence[Path]) -> np.ndarray:
        """uint8 (N, 3, S, S): resized and cropped as for training. Raises MaskrdError naming all unreadable files."""
        images, errors = [], []
        for path in paths:
            try:
                images.append(load_image(path.read_bytes(), path, self.training.image_size))
            except OSError as error:
                errors.append(f"{path}: {error.strerror}.")
            except MaskrdError as error:
                errors.append(str(error))
        if errors:
            raise MaskrdError("\n".join([f"{len(errors)} of {len(paths)} images can't be used.", *errors]))
        return Samples((), np.stack(images), None).cropped(self.training.crop).images


def teacher_beside(model: Path, backbone: str) -> Path:
    """The teacher in the same results folder: results/teachers beside results/models/..."""
    folders = [parent.parent for parent in model.resolve().parents if parent.name == "models"]
    path = folders[0] / "teachers" / f"{backbone}.safetensors" if folders else None
    if path is None or not path.is_file():
        where = path or f"{backbone}.safetensors beside a folder `models`"
        raise MaskrdError(f"{where}: the teacher of {model} is not there. Give it by --teacher.")
    return path


def evaluation_beside(model: Path) -> Evaluation:
    """How the model was tested, from the metrics.json in its folder: its scores mean the same on other images."""
    path = model.with_name("metrics.json")
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))["evaluation"]["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        raise MaskrdError(f"{path}: missing or damaged. It says how to score; ask Snakemake for it.") from None
    return Evaluation.parse(f"{path}: evaluation", json.dumps(recipe))


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files given, and in place of a folder the images in it, sorted. Raises MaskrdError where there are none."""
    found = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [file for file in inside if not path.is_dir() or file.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        folders = ", ".join(str(path) for path in paths)
        raise MaskrdError(f"{folders}: no images there ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return found


def map_range(model: Path, maps: np.ndarray) -> tuple[float, float]:
    """The range of colours: that of the category's test set if heatmaps.npz is there, else that of these maps."""
    path = model.with_name("heatmaps.npz")
    if path.is_file():
        with np.load(path) as file:
            return float(file["low"]), float(file["high"])
    return float(maps.min()), float(maps.max())


def draw_heatmap(image: np.ndarray, anomaly_map: np.ndarray, low: float, high: float) -> Image.Image:
    """The image (3, S, S), and beside it the map (S, S) upon it; colours from `low` to `high`."""
    picture = image.transpose(1, 2, 0)
    colors = colormaps[COLORMAP](scaled(anomaly_map, low, high).clip(0, 1))[..., :3] * 255
    overlay = (1 - OVERLAY) * picture + OVERLAY * colors
    return Image.fromarray(np.hstack([picture, overlay.round().astype(np.uint8)]))


def predict(
    model: Path,
    paths: Sequence[Path],
    output: Path,
    teacher: Path | None = None,
    device: str = "auto",
    threads: int = 1,
    gpu_jobs: int = 1,
) -> None:
    """Write {output}/scores.csv (image, score, heatmap) and a PNG for each image: it, and its anomaly map upon it.

    Higher scores are more anomalous; they compare within one model only. Raises MaskrdError for images that can't be
    read, before anything is written, and for a model without its teacher or metrics.json.
    """
    files = find_images(paths)
    predictor = Predictor(model, teacher, device, threads, gpu_jobs)
    images = predictor.load(files)
    maps, scores = predictor.score_all(images)
    low, high = map_range(model, maps)
    names = [f"{position:04d}-{path.stem}.png" for position, path in enumerate(files)]
    for name, image, anomaly_map in zip(names, images, maps, strict=True):
        with atomic_path(output / name) as temporary:
            draw_heatmap(image, anomaly_map, low, high).save(temporary)
    rows = zip(files, map(score_text, scores), names, strict=True)
    write_csv(output / "scores.csv", ["image", "score", "heatmap"], rows)
