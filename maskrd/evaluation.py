"""Testing one model: anomaly maps, image scores, metrics.json."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrd.data.index import Index
from maskrd.data.samples import Samples, load_test
from maskrd.errors import MaskrdError
from maskrd.experiment import Evaluation, Training
from maskrd.files import atomic_path, sha256_file, write_csv, write_json
from maskrd.metrics import auroc, pixel_metrics, pro_per_image, pro_pooled_thresholds
from maskrd.provenance import code_commit
from maskrd.runtime import describe
from maskrd.scoring import Scorer, read_description, recorded_training, score_text


@dataclass(frozen=True)
class Job:
    """Files and settings of one evaluation, as the command line gives them."""

    index: Path
    data: Path
    teacher: Path
    model: Path
    evaluation: Evaluation
    training: Training
    device: str
    threads: int
    gpu_jobs: int = 1


class Tester(Scorer):
    """A trained model that is the one wanted, and its test set."""

    def __init__(self, job: Job) -> None:
        check_description(job, read_description(job.model))
        super().__init__(job.model, job.teacher, job.evaluation, job.device, job.threads, job.gpu_jobs)
        self.job = job
        self.index = Index.read(job.index)

    def load_test(self) -> Samples:
        settings = self.training
        return load_test(self.index, self.job.data, settings.image_size, self.job.threads).cropped(settings.crop)


def check_description(job: Job, description: dict) -> None:
    """Refuse a model of another recipe, other data or another teacher than those at hand."""
    wanted = job.training.model_dump(mode="json")
    trained = recorded_training(job.model, description).model_dump(mode="json")
    if wanted["precision"] == "auto":
        wanted["precision"] = trained["precision"]
    differing = sorted(key for key in wanted if wanted[key] != trained[key])
    if differing:
        pairs = ", ".join(f"{key}: {trained[key]!r} instead of {wanted[key]!r}" for key in differing)
        raise MaskrdError(f"{job.model} was trained with another recipe ({pairs}). Delete it to train it anew.")
    for name, path in (("data_sha256", job.index), ("teacher_sha256", job.teacher)):
        if description[name] != sha256_file(path):
            raise MaskrdError(f"{job.model} was trained with another {path}. Delete the model to train it anew.")


def evaluate(job: Job, metrics: Path, scores: Path) -> None:
    """Score the test set; write metrics.json and scores.csv (image, defect, score).

    AUROCs and AUPRO are fractions of 1; the pixel ones are null without masks.
    """
    tester = Tester(job)
    samples = tester.load_test()
    started = time.monotonic()
    maps, image_scores = tester.score_all(samples.images, keep_maps=samples.masks is not None)
    values: dict[str, float | None] = {"image_auroc": auroc(samples.defective, image_scores)}
    values.update(pixel_values(samples, maps))
    write_scores(scores, samples, image_scores)
    write_json(metrics, {**values, **provenance(tester, samples, time.monotonic() - started)})


def pixel_values(samples: Samples, maps: np.ndarray | None) -> dict[str, float | None]:
    if maps is None or samples.masks is None:
        return {"pixel_auroc": None, "aupro": None, "pro_per_image": None, "pro_200_thresholds": None}
    pixels = pixel_metrics(samples.masks, maps)
    return {
        "pixel_auroc": pixels.auroc,
        "aupro": pixels.aupro,
        "pro_per_image": pro_per_image(samples.masks, maps),
        "pro_200_thresholds": pro_pooled_thresholds(samples.masks, maps),
    }


def write_scores(path: Path, samples: Samples, scores: np.ndarray) -> None:
    names = (e.image if e.record is None else f"{e.image}#{e.record}" for e in samples.entries)
    defects = (entry.defect for entry in samples.entries)
    write_csv(path, ["image", "defect", "score"], zip(names, defects, map(score_text, scores), strict=True))


def provenance(tester: Tester, samples: Samples, seconds: float) -> dict:
    return {
        "training": tester.description,
        "evaluation": {
            "recipe": tester.job.evaluation.model_dump(mode="json"),
            **describe(tester.device),
            "commit": code_commit(),
            "model_sha256": sha256_file(tester.job.model),
            "images": len(samples.images),
            "seconds": round(seconds, 2),
        },
    }


def write_heatmaps(job: Job, count: int, output: Path) -> None:
    """Images, masks and anomaly maps of the first `count` images of every defect type, for figures.

    .npz: images uint8 (K, 3, S, S), maps float32 (K, S, S), defects and names (K,), `low` and `high`: the range of the
    maps of the whole test set; masks bool (K, S, S), absent where the category has none.
    """
    tester = Tester(job)
    samples = tester.load_test()
    maps, _ = tester.score_all(samples.images)
    chosen = first_of_each_defect(samples, count)
    with atomic_path(output) as temporary:
        np.savez_compressed(
            temporary,
            images=samples.images[chosen],
            **({} if samples.masks is None else {"masks": samples.masks[chosen]}),
            maps=maps[chosen],
            defects=[samples.entries[k].defect for k in chosen],
            names=[samples.entries[k].image for k in chosen],
            low=maps.min(),
            high=maps.max(),
        )


def first_of_each_defect(samples: Samples, count: int) -> list[int]:
    seen: dict[str, list[int]] = {}
    for position, entry in enumerate(samples.entries):
        seen.setdefault(entry.defect, []).append(position)
    return [position for defect, positions in seen.items() for position in positions[:count]]
