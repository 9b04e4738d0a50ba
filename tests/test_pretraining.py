"""Pre-training with a tiny budget."""

from pathlib import Path

import numpy as np
import pytest
import torch

from maskrd.demo.teachers import CLASSES, SIDE, draw_batch, draw_pictures, pretrain
from maskrd.methods.teacher import load_teacher


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, list[float]]]:
    folder = tmp_path_factory.mktemp("teachers")
    outputs = {name: folder / f"{name}.safetensors" for name in ("demo_resnet18", "demo_resnet50")}
    return outputs, pretrain(outputs, threads=1, images=256, steps=12)


def test_every_class_is_drawn() -> None:
    pictures = draw_pictures(2 * len(CLASSES), seed=0)
    assert pictures.images.shape == (2 * len(CLASSES), 3, SIDE, SIDE)
    assert pictures.images.dtype == torch.uint8
    assert torch.equal(pictures.labels.bincount(), torch.full((len(CLASSES),), 2))
    assert (pictures.images.float().flatten(1).std(dim=1) > 2).all()


def test_pictures_depend_on_the_seed_only() -> None:
    first, second, other = (draw_pictures(len(CLASSES), seed).images for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_masks_tell_which_picture_shows() -> None:
    pictures = draw_pictures(256, seed=0)
    pictures.images[:] = pictures.labels.byte()[:, None, None, None]
    batch = draw_batch(pictures)
    covered = batch.mask[:, 0] == 1
    shown = torch.where(covered, batch.above[:, None, None], batch.below[:, None, None])
    sure = covered | (batch.mask[:, 0] == 0)
    assert torch.equal(batch.images[:, 0][sure], shown[sure].float())


def test_loss_falls(trained: tuple[dict[str, Path], dict[str, list[float]]]) -> None:
    for losses in trained[1].values():
        assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_teacher_files_load(trained: tuple[dict[str, Path], dict[str, list[float]]]) -> None:
    digests = set()
    for name, path in trained[0].items():
        teacher, description = load_teacher(path)
        assert description.backbone == name
        digests.add(description.weights_sha256)
        features = teacher(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        assert [feature.shape[-1] for feature in features] == [16, 8, 4]
    assert len(digests) == 2


def test_equal_seeds_give_equal_teachers(
    trained: tuple[dict[str, Path], dict[str, list[float]]], tmp_path: Path
) -> None:
    again = tmp_path / "again.safetensors"
    pretrain({"demo_resnet50": again}, threads=1, images=256, steps=12)
    assert again.read_bytes() == trained[0]["demo_resnet50"].read_bytes()
