"""Every network that can be a teacher: as torchvision and timm have it, and trained with."""

from pathlib import Path

import pytest
import torch

from maskrd.config.teachers import ARCHITECTURES
from maskrd.engine.training import train
from maskrd.layers.resnet import init_weights
from maskrd.methods import build_method
from maskrd.methods.teacher import Teacher, TeacherFile, build_pyramid, check_against_timm, save_teacher
from maskrd.sources.registry import load_sources
from tests.conftest import ROOT

REAL = [name for name in ARCHITECTURES if not name.startswith("demo_")]


@pytest.mark.parametrize("backbone", REAL)
def test_weights_are_torchvisions_first_ones(backbone: str) -> None:
    from torchvision.models import get_model_weights

    source = load_sources(ROOT / "workflow/sources.yaml").weights[backbone]
    published = get_model_weights(backbone).IMAGENET1K_V1
    assert source.addresses == (published.url,)
    assert source.file == Path(published.url).name
    # Torchvision puts the first eight digits of the sha256 into the name.
    digits = Path(published.url).stem.rsplit("-", 1)[1]
    assert digits == (source.checksum.sha256_prefix or source.checksum.sha256[:8])
    if source.size:  # torchvision has it in MiB
        assert source.size / 2**20 == pytest.approx(published.meta["_file_size"], rel=1e-3)


def test_every_source_of_weights_is_a_teacher() -> None:
    assert set(load_sources(ROOT / "workflow/sources.yaml").weights) == set(REAL)


@pytest.mark.parametrize("backbone", REAL)
def test_features_are_timms(backbone: str) -> None:
    torch.manual_seed(0)
    pyramid = build_pyramid(ARCHITECTURES[backbone])
    init_weights(pyramid)
    for name, buffer in pyramid.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
    check_against_timm(backbone, pyramid.state_dict(), pyramid.eval())


@pytest.mark.parametrize("backbone", ["resnet34", "resnext50_32x4d"])
def test_methods_train_with_it(backbone: str, training_job, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pyramid = build_pyramid(ARCHITECTURES[backbone])
    init_weights(pyramid)
    teacher = tmp_path / "teacher.safetensors"
    save_teacher(pyramid, TeacherFile(backbone, "0" * 64), teacher)
    job = training_job(teacher=teacher, epochs=1, batch_size=6)
    train(job)
    assert job.model.exists()


@pytest.mark.parametrize("backbone", ["resnet34", "resnext50_32x4d", "wide_resnet101_2"])
def test_students_mirror_the_teacher(backbone: str, recipe, evaluation) -> None:
    with torch.device("meta"):
        teacher = Teacher(ARCHITECTURES[backbone])
        images = torch.empty(2, 3, 64, 64, dtype=torch.uint8)
        for name in ("maskrd", "stpm", "msfd", "asymmetric"):
            method = build_method(recipe(method=name), teacher)
            assert method.loss(images, teacher(images)).shape == ()
            assert method.maps_and_scores(images, evaluation())[0].shape == (2, 64, 64)
