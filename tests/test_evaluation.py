import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maskrd import evaluation as scoring
from maskrd.data.index import Index, build_index
from maskrd.data.samples import Samples, load_test
from maskrd.errors import MaskrdError
from maskrd.evaluation import Job, evaluate, write_heatmaps
from maskrd.experiment import Metric
from maskrd.files import sha256_file
from maskrd.methods.base import gaussian_blur
from maskrd.metrics import aupro, auroc, pro_per_image, pro_pooled_thresholds
from maskrd.training import Job as TrainingJob
from maskrd.training import Trainer, train

METRICS = Metric.__args__


def evaluation_job(trained: TrainingJob, evaluation, **changes) -> Job:
    job = Job(trained.index, trained.data, trained.teacher, trained.model, evaluation(), trained.recipe, "cpu", 1)
    return replace(job, **changes)


@pytest.fixture(scope="module")
def kept() -> list[TrainingJob]:
    return []


@pytest.fixture
def trained(kept: list[TrainingJob], training_job: Callable[..., TrainingJob]) -> TrainingJob:
    """A finished training, trained once."""
    if not kept:
        kept.append(training_job(epochs=2, batch_size=6))
        train(kept[0])
    return kept[0]


@pytest.fixture
def job(trained, evaluation) -> Job:
    return evaluation_job(trained, evaluation)


def run(job: Job, folder: Path) -> tuple[dict, list[dict]]:
    evaluate(job, folder / "metrics.json", folder / "scores.csv")
    with (folder / "scores.csv").open() as file:
        return json.loads((folder / "metrics.json").read_text()), list(csv.DictReader(file))


def test_writes_metrics_with_their_provenance(job, trained, tmp_path):
    metrics, _ = run(job, tmp_path)
    assert set(metrics) == {*METRICS, "training", "evaluation"}
    assert all(0 <= metrics[name] <= 1 for name in METRICS)
    training, testing = metrics["training"], metrics["evaluation"]
    assert training["recipe"] == trained.recipe.model_dump(mode="json")
    assert training["data_sha256"] == sha256_file(job.index)
    assert training["teacher_sha256"] == sha256_file(job.teacher)
    assert testing["recipe"] == job.evaluation.model_dump(mode="json")
    assert testing["model_sha256"] == sha256_file(job.model)
    assert testing["images"] == 7
    for part in (training, testing):
        assert part["seconds"] > 0
        assert {"device", "torch", "maskrd", "python"} <= set(part)
        assert part["threads"] == job.threads
    assert training["weights_sha256"]
    assert all(str(path) not in json.dumps(metrics) for path in (job.model.parent, job.data, job.teacher.parent))


def test_metrics_are_those_of_the_maps(job, tmp_path):
    metrics, scores = run(job, tmp_path)
    tester = scoring.Tester(job)
    samples = load_test(tester.index, job.data, 32)
    maps, image_scores = tester.score_all(samples.images)
    np.testing.assert_array_equal(image_scores, maps.max((1, 2)))
    assert metrics["image_auroc"] == auroc(samples.defective, image_scores)
    assert metrics["pixel_auroc"] == pytest.approx(auroc(samples.masks, maps))
    assert metrics["aupro"] == aupro(samples.masks, maps)
    assert metrics["pro_per_image"] == pro_per_image(samples.masks, maps)
    assert metrics["pro_200_thresholds"] == pro_pooled_thresholds(samples.masks, maps, 200)
    assert [(row["image"], row["defect"]) for row in scores] == [
        (f"test/{defect}/{number:03d}.png", defect)
        for defect, count in (("crack", 2), ("good", 3), ("stain", 2))
        for number in range(count)
    ]
    np.testing.assert_allclose([float(row["score"]) for row in scores], image_scores, rtol=1e-6)


def test_three_definitions_of_pro_have_their_own_names():
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 24, 24), bool)
    masks[:3, 4:9, 5:9] = masks[1, 15:20, 12:20] = True
    maps = rng.exponential(size=masks.shape).astype(np.float32) + masks
    values = scoring.pixel_values(Samples((), np.empty((4, 3, 24, 24)), masks), maps)
    assert values["aupro"] == aupro(masks, maps)
    assert values["pro_per_image"] == pro_per_image(masks, maps)
    assert values["pro_200_thresholds"] == pro_pooled_thresholds(masks, maps, 200)
    assert len(set(values.values())) == 4


def test_mean_scores_and_unblurred_maps(job):
    tester = scoring.Tester(
        replace(job, evaluation=job.evaluation.model_copy(update={"score": "mean", "blur_sigma": 0}))
    )
    samples = load_test(tester.index, job.data, 32)
    sharp, scores = tester.score_all(samples.images)
    np.testing.assert_allclose(scores, sharp.mean((1, 2)), rtol=1e-6)
    blurred, _ = scoring.Tester(job).score_all(samples.images)
    np.testing.assert_allclose(
        gaussian_blur(torch.from_numpy(sharp), job.evaluation.blur_sigma), blurred, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"fmm": False, "layers": [2, 3]}])
def test_a_saved_and_reloaded_model_gives_equal_maps(training_job, evaluation, changes, monkeypatch):
    trainers, original = [], Trainer.write
    monkeypatch.setattr(Trainer, "write", lambda self: (trainers.append(self), original(self)))
    job = training_job(epochs=1, batch_size=6, **changes)
    train(job)
    tester = scoring.Tester(evaluation_job(job, evaluation))
    samples = load_test(tester.index, job.data, 32)
    reloaded, _ = tester.score_all(samples.images)
    tester.method = trainers[0].method.eval()
    in_memory, _ = tester.score_all(samples.images)
    np.testing.assert_array_equal(reloaded, in_memory)


def test_an_images_score_does_not_depend_on_its_neighbours(job, monkeypatch):
    tester = scoring.Tester(job)
    samples = load_test(tester.index, job.data, 32)
    together, _ = tester.score_all(samples.images)
    monkeypatch.setattr("maskrd.scoring.BATCH_SIZE", 1)
    alone, _ = tester.score_all(samples.images)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_without_masks_pixel_metrics_are_null(trained, evaluation, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(trained.data, data)
    shutil.rmtree(data / "bolt/ground_truth")
    build_index("demo", "bolt", data).write(tmp_path / "index.json")
    retrained = replace(
        trained, index=tmp_path / "index.json", data=data, model=tmp_path / "m.safetensors", history=tmp_path / "h.csv"
    )
    train(retrained)
    metrics, scores = run(evaluation_job(retrained, evaluation), tmp_path)
    assert [metrics[name] for name in METRICS[1:]] == [None] * 4
    assert 0 <= metrics["image_auroc"] <= 1
    assert len(scores) == 7
    write_heatmaps(evaluation_job(retrained, evaluation), 1, tmp_path / "maps.npz")
    content = np.load(tmp_path / "maps.npz")
    assert "masks" not in content
    assert content["maps"].shape == (3, 32, 32)


def complaint(job: Job, folder: Path) -> str:
    with pytest.raises(MaskrdError) as error:
        run(job, folder)
    assert list(folder.iterdir()) == []
    return str(error.value)


@pytest.fixture
def outputs(tmp_path) -> Path:
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs"


def test_a_model_of_another_recipe_is_refused(job, outputs):
    other = job.training.model_copy(update={"mask_ratio": 0.25})
    message = complaint(replace(job, training=other), outputs)
    assert "mask_ratio: 0.5 instead of 0.25" in message
    assert "Delete it to train it anew" in message


def test_a_model_of_other_data_is_refused(job, outputs, tmp_path):
    index = Index.read(job.index)
    replace(index, train=index.train[:-1]).write(tmp_path / "other.json")
    message = complaint(replace(job, index=tmp_path / "other.json"), outputs)
    assert "was trained with another" in message
    assert "other.json" in message


def test_a_model_of_another_teacher_is_refused(job, outputs, tmp_path):
    (tmp_path / "teacher.safetensors").write_bytes(job.teacher.read_bytes() + b" ")
    message = complaint(replace(job, teacher=tmp_path / "teacher.safetensors"), outputs)
    assert "was trained with another" in message


def test_precision_auto_accepts_what_it_was_resolved_to(job):
    assert scoring.Tester(replace(job, training=job.training.model_copy(update={"precision": "auto"})))


@pytest.mark.parametrize("damage", ["truncate", "other file", "missing"])
def test_a_damaged_model_is_named(job, outputs, tmp_path, damage):
    path = tmp_path / "model.safetensors"
    if damage != "missing":
        source = job.model if damage == "truncate" else job.teacher
        path.write_bytes(source.read_bytes()[: -100 if damage == "truncate" else None])
    message = complaint(replace(job, model=path), outputs)
    assert f"{path}: not a model.safetensors of this pipeline" in message


def test_a_test_image_changed_since_indexing_is_refused(job, outputs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(job.data, data)
    shutil.copy(data / "bolt/test/good/000.png", data / "bolt/test/good/001.png")
    assert "test/good/001.png: changed since" in complaint(replace(job, data=data), outputs)


def test_heatmaps_show_the_first_images_of_every_defect(job, tmp_path):
    write_heatmaps(job, 1, tmp_path / "maps.npz")
    content = np.load(tmp_path / "maps.npz")
    assert content["defects"].tolist() == ["crack", "good", "stain"]
    assert content["names"].tolist() == ["test/crack/000.png", "test/good/000.png", "test/stain/000.png"]
    assert content["images"].shape == (3, 3, 32, 32)
    assert content["masks"].any((1, 2)).tolist() == [True, False, True]
    tester = scoring.Tester(job)
    maps, _ = tester.score_all(tester.load_test().images)
    assert (content["low"], content["high"]) == (maps.min(), maps.max())  # of all, not of those shown


def test_a_model_that_scores_no_number_is_refused(job, outputs, tmp_path):
    weights = load_file(job.model)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name] = torch.full_like(weights[name], torch.nan)
    with safe_open(job.model, framework="pt") as file:
        save_file(weights, tmp_path / "broken.safetensors", metadata=file.metadata())
    message = complaint(replace(job, model=tmp_path / "broken.safetensors"), outputs)
    assert "broken.safetensors: the scores of images are not finite" in message


def test_a_model_of_a_later_version_is_refused(job, outputs, tmp_path):
    with safe_open(job.model, framework="pt") as file:
        description = json.loads(file.metadata()["model"])
    description["recipe"]["unheard_of"] = 1
    path = tmp_path / "later.safetensors"
    save_file(load_file(job.model), path, metadata={"model": json.dumps(description)})
    assert "later.safetensors: recipe: unknown 'unheard_of'" in complaint(replace(job, model=path), outputs)
