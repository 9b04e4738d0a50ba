"""Score images with a trained model: scores, decisions and heatmaps, a batch at a time."""

import csv
import glob
import io
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from matplotlib import colormaps
from PIL import Image
from pydantic import ValidationError
from tqdm import tqdm

from maskrd.colors import COLORMAP, OVERLAY, scaled
from maskrd.config.files import GALLERY_FILE, METRICS_FILE, SCORES_FILE
from maskrd.config.record import Record, read_record
from maskrd.config.settings import Evaluation, StrictData, Training
from maskrd.data.changes import IMAGE_SUFFIXES
from maskrd.data.images import load_image
from maskrd.data.samples import Samples
from maskrd.engine.decision import choose_threshold
from maskrd.engine.machine import Machine
from maskrd.engine.model_file import read_training
from maskrd.engine.scoring import BATCH_SIZE, Scorer, load_scorer, score_text
from maskrd.errors import MaskrdError
from maskrd.files import naming_errors, read_csv, sha256_file, write_csv, write_json
from maskrd.gallery import read_range

PREDICTION = "prediction.json"
UNREADABLE = "unreadable.csv"
LOCK = ".lock"
COLUMNS = ["image", "score", "anomalous", "heatmap", "sha256"]
IMAGE, _, ANOMALOUS, HEATMAP, DIGEST = range(len(COLUMNS))
SAME_THRESHOLD = 1e-4  # relative difference of two thresholds from the same images
LONGEST_STEM = 180  # bytes of an image's name that go into its heatmap's name; file systems allow 255 in all


class Prediction(StrictData):
    """What the scores in a folder were made with. A run that continues in the folder must have the same.

    `low` and `high` are the map values of the first and last heatmap colour.
    """

    model_sha256: str
    evaluation: Evaluation
    threshold: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """The number of images scored, how many count as anomalous (None without a threshold), and the unreadable ones."""

    scored: int
    anomalous: int | None
    unreadable: dict[str, str]  # what is wrong, by image


def predict(
    model: Path,
    paths: Sequence[Path],
    output: Path,
    machine: Machine,
    teacher: Path | None = None,
    normal: Sequence[Path] = (),
    heatmaps: bool = True,
) -> Summary:
    """Write {output}/scores.csv, with a line for each image, and a heatmap of each as PNG: the image, then its map.

    Higher scores are more anomalous. Only scores of the same model can be compared. An image whose score is above the
    threshold counts as anomalous. The threshold is chosen on `normal` images, which the model must not have learned
    from; without them, it is that of the record. A run continues where an earlier one stopped; images that changed
    meanwhile are scored again. Images that can't be read are listed in {output}/unreadable.csv. Files below `output`
    are left out.

    Raises MaskrdError if the teacher, the record or the images are missing, for a model that is tested with random
    masks, and if `output` holds other files or the scores of another model or threshold, or another run writes there at
    this moment.
    """
    refuse_foreign(output)
    own = Path(os.path.realpath(output))
    # Not Path.resolve, which raises for a link that leads to itself.
    files = [path for path in find_images(paths) if own not in Path(os.path.realpath(path)).parents]
    record = record_beside(model)
    if record.evaluation.recipe.mask_at_test:
        raise MaskrdError(
            f"{model}: tested with mask_at_test, whose masks are random, so an image by itself has no certain score. "
            "Test the model with mask_at_test: false."
        )
    scorer = scorer_beside_results(model, record, teacher, machine)
    threshold = record.decision.threshold if record.decision else None
    if normal:
        threshold = normal_threshold(scorer, find_images(normal), machine.threads)
    run = Run(output, scorer, record.evaluation.model_sha256, threshold, heatmaps, machine.threads)
    with locked(output):
        rows = run.score_all(files)
    anomalous = sum(row[ANOMALOUS] == "true" for row in rows)
    return Summary(len(rows), None if threshold is None else anomalous, run.unreadable)


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Have the folder to oneself. Raises MaskrdError if another run writes there."""
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise MaskrdError(f"{output}: another run writes to it. Wait for its end, or choose another folder.") from None
    try:
        yield
    finally:
        lock.release()


@dataclass
class Run:
    """Scores images into the folder `output`. `unreadable` collects what is wrong, by image."""

    output: Path
    scorer: Scorer
    model_sha256: str
    threshold: float | None
    heatmaps: bool
    threads: int
    unreadable: dict[str, str] = field(default_factory=dict)
    prediction: Prediction | None = None

    def score_all(self, files: Sequence[Path]) -> list[list[str]]:
        """Score what an earlier run did not. Returns all lines of scores.csv, which grows with each batch."""
        path = self.output / SCORES_FILE
        earlier = read_rows(path)
        self.resume()
        rows, number = self.keep_current(earlier, files)
        done = {row[IMAGE] for row in rows}
        waiting = [file for file in files if printable(file) not in done]
        self.unreadable.update(self.earlier_problems(files))
        write_csv(path, COLUMNS, rows)
        with naming_errors(path), path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            for start in tqdm(range(0, len(waiting), BATCH_SIZE), unit="batch", mininterval=2, dynamic_ncols=True):
                found = self.score(waiting[start : start + BATCH_SIZE], number + start)
                writer.writerows(found)
                file.flush()
                rows += found
        write_csv(self.output / UNREADABLE, ["image", "problem"], self.unreadable.items())
        return rows

    def keep_current(self, rows: list[list[str]], files: Sequence[Path]) -> tuple[list[list[str]], int]:
        """The lines of images that are as they were, with their heatmaps, and the first number that no heatmap has.

        The heatmaps of the others are removed.
        """
        numbers = [row[HEATMAP].partition("-")[0] for row in rows]
        wanted = {printable(file): file for file in files}
        kept = []
        for row in rows:
            file = wanted.get(row[IMAGE])
            drawn = not self.heatmaps or (row[HEATMAP] and (self.output / Path(row[HEATMAP]).name).is_file())
            if file is None or not file.is_file() or (drawn and sha256_file(file) == row[DIGEST]):
                kept.append(row)
            elif row[HEATMAP]:
                (self.output / Path(row[HEATMAP]).name).unlink(missing_ok=True)  # never a file elsewhere
        return kept, max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1

    def earlier_problems(self, files: Sequence[Path]) -> dict[str, str]:
        """What an earlier run couldn't read, without the images that this run tries again."""
        path, again = self.output / UNREADABLE, set(map(printable, files))
        lines = read_csv(path) if path.exists() else []
        return {line["image"]: line["problem"] for line in lines if line["image"] not in again}

    def score(self, paths: Sequence[Path], number: int) -> list[list[str]]:
        """Write heatmaps and return the lines of the images that can be read; `number`: of the first heatmap."""
        readable, images = read_images(paths, self.scorer.settings, self.threads, self.unreadable)
        if not readable:
            return []
        maps, scores = self.scorer.score(images)
        self.prediction = self.prediction or self.start(maps)
        rows = []
        for position, path in enumerate(readable):
            name = heatmap_name(number + position, path) if self.heatmaps else ""
            if name:
                with naming_errors(self.output / name):
                    draw_heatmap(images[position], maps[position], self.prediction).save(self.output / name)
            anomalous = "" if self.threshold is None else str(bool(scores[position] > self.threshold)).lower()
            rows.append([printable(path), score_text(scores[position]), anomalous, name, sha256_file(path)])
        return rows

    def start(self, maps: np.ndarray) -> Prediction:
        """Write what all scores of the folder are made with.

        The colours come from the test's gallery, or else from `maps`.
        """
        prediction = self.with_colours(*map_range(Path(self.scorer.name), maps))
        write_json(self.output / PREDICTION, prediction.model_dump(mode="json"))
        return prediction

    def resume(self) -> None:
        """Take the colours of an earlier run in this folder, if there was one.

        Raises MaskrdError if it used another model or threshold.
        """
        path = self.output / PREDICTION
        if not path.exists():
            return
        try:
            found = Prediction.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise MaskrdError(f"{path}: damaged ({error.errors()[0]['msg']}). Choose another folder.") from None
        chosen = None not in (self.threshold, found.threshold)
        # Another machine or number of threads chooses the same threshold but for the last digits.
        if chosen and math.isclose(self.threshold, found.threshold, rel_tol=SAME_THRESHOLD):
            self.threshold = found.threshold
        if found != self.with_colours(found.low, found.high):
            raise MaskrdError(
                f"{path}: the folder holds scores of another model, recipe of testing or threshold. Choose another "
                "folder, or give the same --normal images."
            )
        self.prediction = found

    def with_colours(self, low: float, high: float) -> Prediction:
        return Prediction(
            model_sha256=self.model_sha256,
            evaluation=self.scorer.evaluation,
            threshold=self.threshold,
            low=low,
            high=high,
        )


def scorer_beside_results(model: Path, record: Record, teacher: Path | None, machine: Machine) -> Scorer:
    """The scorer of a model file, with the recipe of its record and by default the teacher of its results folder.

    Raises MaskrdError if model or teacher are not those of the record.
    """
    trained = read_training(model)
    if sha256_file(model) != record.evaluation.model_sha256:
        raise MaskrdError(
            f"{model}: not the file that {model.with_name(METRICS_FILE)} was made from. "
            "Test the model again with Snakemake."
        )
    teacher = teacher or teacher_beside(model, trained.backbone)
    if sha256_file(teacher) != trained.teacher_sha256:
        raise MaskrdError(f"{teacher}: not the teacher of {model}. Name the right one with --teacher.")
    return load_scorer(model, teacher, record.evaluation.recipe, machine)


def record_beside(model: Path) -> Record:
    """The metrics.json in the model's folder. It has the recipe that the scores are made with.

    Raises MaskrdError if `model` isn't a model, or was not tested.
    """
    read_training(model)  # first, so that the message about a wrong file says that
    path = model.with_name(METRICS_FILE)
    if not path.exists():
        raise MaskrdError(f"{path}: missing. It has the settings for scoring. Test the model with Snakemake first.")
    return read_record(path)


def teacher_beside(model: Path, backbone: str) -> Path:
    """The teacher in the same results folder: results/teachers beside results/models/..."""
    folders = [parent.parent for parent in model.resolve().parents if parent.name == "models"]
    path = folders[0] / "teachers" / f"{backbone}.safetensors" if folders else None
    if path is None or not path.is_file():
        where = path or f"{backbone}.safetensors beside a folder `models`"
        raise MaskrdError(f"{where}: missing. It is the teacher of {model}. Name it with --teacher.")
    return path


def normal_threshold(scorer: Scorer, paths: Sequence[Path], threads: int) -> float:
    """The threshold chosen on normal images. Raises MaskrdError if one of them can't be read."""
    scores, unreadable = [], {}
    for start in range(0, len(paths), BATCH_SIZE):
        readable, images = read_images(paths[start : start + BATCH_SIZE], scorer.settings, threads, unreadable)
        if readable:
            scores.append(scorer.score(images)[1])
    if unreadable:
        raise MaskrdError("\n".join(["These normal images can't be read:", *unreadable.values()]))
    return choose_threshold(np.concatenate(scores), scorer.evaluation.false_alarm_rate)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The given files, each once. A folder or a pattern such as `**/*.png` becomes its images, sorted.

    Names that begin with a dot are left out of folders: macOS writes `._x.png`. Raises MaskrdError if there are no
    images.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if is_image_name(file))
        elif not os.path.lexists(path) and glob.has_magic(str(path)):
            found += sorted(filter(is_image_name, map(Path, glob.iglob(str(path), recursive=True))))  # noqa: PTH207, relative and absolute
        else:
            found.append(path)
    if not any(os.path.lexists(path) for path in found):
        folders = ", ".join(str(path) for path in paths)
        raise MaskrdError(
            f"{folders}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}). Correct the path. A pattern such as "
            "'photos/**/*.png' finds images in subfolders, too."
        )
    return list(dict.fromkeys(found))


def is_image_name(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def read_images(
    paths: Sequence[Path], settings: Training, threads: int, unreadable: dict[str, str]
) -> tuple[list[Path], np.ndarray]:
    """The paths that can be read, and their images, uint8 (N, 3, S, S), resized and cropped as for training.

    The others go into `unreadable`, with what is wrong.
    """
    with ThreadPoolExecutor(threads) as pool:
        tried = list(pool.map(partial(read_image, size=settings.image_size), paths))
    pairs = list(zip(paths, tried, strict=True))
    unreadable.update({printable(path): printable(problem) for path, problem in pairs if isinstance(problem, str)})
    good = [(path, image) for path, image in pairs if not isinstance(image, str)]
    if not good:
        return [], np.empty((0, 3, 0, 0), np.uint8)
    images = Samples((), np.stack([image for _, image in good]), None).cropped(settings.crop).images
    return [path for path, _ in good], images


def read_image(path: Path, size: int) -> np.ndarray | str:
    """uint8 (3, size, size), or what is wrong with the file."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            return f"{path}: not a file."
        return load_image(path.read_bytes(), path, size)
    except OSError as error:
        return f"{path}: {error.strerror}."
    except MaskrdError as error:
        return str(error)


def read_rows(path: Path) -> list[list[str]]:
    """The complete lines of an earlier run's scores.csv. A line that a kill cut short is left out.

    Raises MaskrdError for a file that no earlier run wrote.
    """
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8", "replace")  # a kill may cut a letter, too
    try:
        header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    except csv.Error:
        header, rows = [], []
    if rows and (not text.endswith("\n") or len(rows[-1]) < len(COLUMNS)):
        del rows[-1]
    ours = path.with_name(PREDICTION).exists() and {len(row) for row in rows} <= {len(COLUMNS)}
    if header != COLUMNS or not (ours or not rows):
        raise MaskrdError(f"{path}: exists, but not from an earlier run of this command. Choose another folder.")
    return rows


def refuse_foreign(output: Path) -> None:
    """Raises MaskrdError for a file, and for a folder with files of others: a heatmap could overwrite one of them."""
    if output.is_file():
        raise MaskrdError(f"{output}: a file. Choose a new folder.")
    if not output.is_dir() or (output / PREDICTION).exists():
        return
    ours = {SCORES_FILE, UNREADABLE} if (output / SCORES_FILE).exists() else set()  # of a run that could read no image
    others = [path for path in output.iterdir() if path.name not in ours and not path.name.startswith(".")]
    if others:
        raise MaskrdError(f"{output}: holds other files, such as {others[0].name}. Choose a new folder.")


def printable(path: Path | str) -> str:
    """The path, or a text with it. Bytes that aren't UTF-8 become backslashes and digits."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def heatmap_name(number: int, path: Path) -> str:
    """A unique name for heatmap `number`."""
    stem = os.fsencode(path.stem)[:LONGEST_STEM].decode("utf-8", "ignore")
    return f"{number:04d}-{stem}.png"


def map_range(model: Path, maps: np.ndarray) -> tuple[float, float]:
    """The range of colours: that of the test set if its gallery exists, otherwise that of these maps.

    Raises MaskrdError for a gallery that can't be read.
    """
    path = model.with_name(GALLERY_FILE)
    if not path.is_file():
        return float(maps.min()), float(maps.max())
    return read_range(path)


def draw_heatmap(image: np.ndarray, anomaly_map: np.ndarray, prediction: Prediction) -> Image.Image:
    """Two pictures side by side: the image (3, S, S), and the image under its map (S, S)."""
    picture = image.transpose(1, 2, 0)
    colors = colormaps[COLORMAP](scaled(anomaly_map, prediction.low, prediction.high).clip(0, 1))[..., :3] * 255
    overlay = (1 - OVERLAY) * picture + OVERLAY * colors
    return Image.fromarray(np.hstack([picture, overlay.round().astype(np.uint8)]))
