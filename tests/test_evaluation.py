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

from maskrd.config.settings import Metric
from maskrd.data.index_file import Index
from maskrd.data.indexing import build_index
from maskrd.data.samples import Samples
from maskrd.engine import training as training_module
from maskrd.engine.evaluation import EvaluationJob, evaluate, load_test_set, pixel_values, wanted_scorer
from maskrd.engine.inputs import TrainingJob
from maskrd.engine.machine import Machine
from maskrd.engine.model_file import read_training
from maskrd.engine.training import train
from maskrd.errors import MaskrdError
from maskrd.files import sha256_file
from maskrd.gallery import Gallery
from maskrd.methods.base import gaussian_blur
from maskrd.metrics import (
    aupro,
    auroc,
    pixel_metrics,
    precision_recall,
    pro_per_image,
    pro_pooled_thresholds,
    pro_rescaled,
)

METRICS = Metric.__args__


def evaluation_job(trained: TrainingJob, evaluation, **changes) -> EvaluationJob:
    job = EvaluationJob(
        trained.index, trained.data, trained.teacher, trained.model, evaluation(), trained.recipe, Machine("cpu")
    )
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
def job(trained, evaluation) -> EvaluationJob:
    return evaluation_job(trained, evaluation)


def run(job: EvaluationJob, folder: Path) -> tuple[dict, list[dict]]:
    evaluate(job, folder / "metrics.json", folder / "scores.csv", folder / "gallery.npz")
    with (folder / "scores.csv").open() as file:
        return json.loads((folder / "metrics.json").read_text()), list(csv.DictReader(file))


def test_writes_metrics_with_their_provenance(job, trained, tmp_path):
    metrics, _ = run(job, tmp_path)
    assert set(metrics) == {*METRICS, "decision", "training", "evaluation"}
    # The rescaled PRO has no value where, as after so short a training, no defect is found at a low FPR.
    assert all(0 <= metrics[name] <= 1 for name in METRICS if name != "pro_rescaled")
    assert set(METRICS) <= set(metrics)
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
        assert part["threads"] == job.machine.threads
    assert training["weights_sha256"]
    assert all(str(path) not in json.dumps(metrics) for path in (job.model.parent, job.data, job.teacher.parent))


def test_metrics_are_those_of_the_maps(job, tmp_path):
    metrics, scores = run(job, tmp_path)
    scorer = wanted_scorer(job)
    samples = load_test_set(job)
    maps, image_scores = scorer.score_all(samples.images)
    np.testing.assert_array_equal(image_scores, maps.max((1, 2)))
    assert metrics["image_auroc"] == auroc(samples.defective, image_scores)
    assert metrics["image_ap"] == precision_recall(samples.defective, image_scores).ap
    assert metrics["image_f1max"] == precision_recall(samples.defective, image_scores).f1max
    assert metrics["pixel_ap"] == pixel_metrics(samples.masks, maps).ap
    assert metrics["pixel_f1max"] == pixel_metrics(samples.masks, maps).f1max
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


def test_four_definitions_of_pro_have_their_own_names():
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 24, 24), bool)
    masks[:3, 4:9, 5:9] = masks[1, 15:20, 12:20] = True
    maps = rng.exponential(size=masks.shape).astype(np.float32) + masks
    values = pixel_values(Samples((), np.empty((4, 3, 24, 24)), masks), maps)
    assert values["aupro"] == aupro(masks, maps)
    assert values["pro_per_image"] == pro_per_image(masks, maps)
    assert values["pro_200_thresholds"] == pro_pooled_thresholds(masks, maps, 200)
    assert values["pro_rescaled"] == pro_rescaled(masks, maps)
    assert len(set(values.values())) == len(values)


def test_mean_scores_and_unblurred_maps(job):
    scorer = wanted_scorer(
        replace(job, evaluation=job.evaluation.model_copy(update={"score": "mean", "blur_sigma": 0}))
    )
    samples = load_test_set(job)
    sharp, scores = scorer.score_all(samples.images)
    np.testing.assert_allclose(scores, sharp.mean((1, 2)), rtol=1e-6)
    blurred, _ = wanted_scorer(job).score_all(samples.images)
    np.testing.assert_allclose(
        gaussian_blur(torch.from_numpy(sharp), job.evaluation.blur_sigma), blurred, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16"}, {"fmm": False, "layers": [2, 3]}])
def test_a_saved_and_reloaded_model_gives_equal_maps(training_job, evaluation, changes, monkeypatch):
    trained, original = [], training_module.write
    monkeypatch.setattr(training_module, "write", lambda *given: (trained.append(given[0]), original(*given)))
    job = training_job(epochs=1, batch_size=6, **changes)
    train(job)
    tested = evaluation_job(job, evaluation)
    scorer, samples = wanted_scorer(tested), load_test_set(tested)
    reloaded, _ = scorer.score_all(samples.images)
    in_memory, _ = replace(scorer, method=trained[0].method.eval()).score_all(samples.images)
    np.testing.assert_array_equal(reloaded, in_memory)


def test_an_images_score_does_not_depend_on_its_neighbours(job, monkeypatch):
    scorer = wanted_scorer(job)
    samples = load_test_set(job)
    together, _ = scorer.score_all(samples.images)
    monkeypatch.setattr("maskrd.engine.scoring.BATCH_SIZE", 1)
    alone, _ = scorer.score_all(samples.images)
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
    assert {name for name in METRICS if metrics[name] is None} == {m for m in METRICS if not m.startswith("image_")}
    assert 0 <= metrics["image_auroc"] <= 1
    assert len(scores) == 7
    gallery = Gallery.read(tmp_path / "gallery.npz")
    assert (gallery.masks, gallery.pro) == (None, None)
    assert gallery.maps.shape[1:] == (32, 32)


def complaint(job: EvaluationJob, folder: Path) -> str:
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
    assert "mask_ratio 0.5 instead of 0.25" in message
    assert "Delete the model to train it again" in message


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
    assert wanted_scorer(replace(job, training=job.training.model_copy(update={"precision": "auto"})))


def test_a_missing_model_and_its_folder_are_no_damaged_model(tmp_path):
    for path in (tmp_path / "model.safetensors", tmp_path):
        with pytest.raises(MaskrdError) as error:
            read_training(path)
        assert str(error.value) == f"{path}: no such file. Name the model.safetensors of a trained model."


@pytest.mark.parametrize("damage", ["truncate", "other file"])
def test_a_damaged_model_is_named(job, outputs, tmp_path, damage):
    path = tmp_path / "model.safetensors"
    source = job.model if damage == "truncate" else job.teacher
    path.write_bytes(source.read_bytes()[: -100 if damage == "truncate" else None])
    message = complaint(replace(job, model=path), outputs)
    assert f"{path}: not a model.safetensors of this pipeline" in message


@pytest.mark.parametrize("recipe", ["maskrd", ["maskrd"], {"method": {}}])
def test_a_model_whose_recipe_is_of_another_kind_is_named(tmp_path, recipe):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, path, metadata={"model": json.dumps({"recipe": recipe})})
    with pytest.raises(MaskrdError, match=r"model\.safetensors: not a model\.safetensors of this pipeline"):
        read_training(path)


def test_a_test_image_changed_since_indexing_is_refused(job, outputs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(job.data, data)
    shutil.copy(data / "bolt/test/good/000.png", data / "bolt/test/good/001.png")
    assert "test/good/001.png: changed since" in complaint(replace(job, data=data), outputs)


def test_the_gallery_has_every_defect_and_the_range_of_all_maps(job, outputs):
    run(job, outputs)
    gallery = Gallery.read(outputs / "gallery.npz")
    assert {"crack", "good", "stain"} == set(gallery.defects)
    assert gallery.images.shape[1:] == (3, 32, 32)
    scorer = wanted_scorer(job)
    samples = load_test_set(job)
    maps, scores = scorer.score_all(samples.images)
    assert (gallery.low, gallery.high) == (maps.min(), maps.max())  # of all, not of those shown
    names = [entry.image for entry in samples.entries]
    for name, image, mask, anomaly_map, score in zip(
        gallery.names, gallery.images, gallery.masks, gallery.maps, gallery.scores, strict=True
    ):
        place = names.index(name)
        assert np.abs(image.astype(int) - samples.images[place]).mean() < 6  # a JPEG
        assert np.array_equal(mask, samples.masks[place])
        step = (gallery.high - gallery.low) / 255
        assert np.allclose(gallery.low + step * anomaly_map, maps[place], atol=step)
        assert score == scores[place]
    assert np.all(np.diff(gallery.pro[1]) >= 0)  # PRO rises with the false positive rate


def test_a_model_that_scores_no_number_is_refused(job, outputs, tmp_path):
    weights = load_file(job.model)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name] = torch.full_like(weights[name], torch.nan)
    with safe_open(job.model, framework="pt") as file:
        description = {"model": file.metadata()["model"]}  # as in earlier versions, without a digest of the tensors
    save_file(weights, tmp_path / "broken.safetensors", metadata=description)
    message = complaint(replace(job, model=tmp_path / "broken.safetensors"), outputs)
    assert "broken.safetensors: the scores of images are not finite" in message


def test_a_model_whose_tensors_changed_is_refused(job, outputs, tmp_path):
    content = bytearray(job.model.read_bytes())
    content[-1] ^= 1  # of the last tensor: any value is a number
    path = tmp_path / "changed.safetensors"
    path.write_bytes(content)
    message = complaint(replace(job, model=path), outputs)
    assert "changed.safetensors: its tensors changed since they were written. Delete it." in message


def test_a_model_of_a_later_version_is_refused(job, outputs, tmp_path):
    with safe_open(job.model, framework="pt") as file:
        description = json.loads(file.metadata()["model"])
    description["recipe"]["unheard_of"] = 1
    path = tmp_path / "later.safetensors"
    save_file(load_file(job.model), path, metadata={"model": json.dumps(description)})
    assert "unheard_of: Extra inputs are not permitted" in complaint(replace(job, model=path), outputs)


def test_a_model_file_with_weights_of_another_recipe_is_refused(job, tmp_path):
    with safe_open(job.model, "pt") as file:
        metadata = {"model": file.metadata()["model"]}
    weights = load_file(job.model)
    weights["odd"] = weights.pop(sorted(weights)[0])
    save_file(weights, tmp_path / "model.safetensors", metadata)
    with pytest.raises(MaskrdError, match=r"model\.safetensors: its weights don't fit its recipe"):
        wanted_scorer(replace(job, model=tmp_path / "model.safetensors"))
