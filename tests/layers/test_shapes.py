"""Shapes and sizes of whole networks, on the device `meta`: nothing is computed, so the real ones are cheap."""

import pytest
import torch

from maskrd.config.teachers import ARCHITECTURES
from maskrd.layers.decoder import Decoder
from maskrd.layers.msff import MSFF
from maskrd.layers.resnet import FeaturePyramid, count_parameters, stage
from maskrd.methods import build_method
from maskrd.methods.teacher import Teacher

REAL = ("resnet18", "resnet50", "wide_resnet50_2")
WIDTHS = {"resnet18": (64, 128, 256, 512)} | dict.fromkeys(REAL[1:], (256, 512, 1024, 2048))


@pytest.fixture(autouse=True)
def meta_device():
    with torch.device("meta"):
        yield


def features(backbone: str, image_size: int = 256) -> list[torch.Tensor]:
    sizes = zip(WIDTHS[backbone], (4, 8, 16), strict=False)
    return [torch.empty(2, width, image_size // step, image_size // step) for width, step in sizes]


@pytest.mark.parametrize("backbone", REAL)
def test_teacher_gives_three_levels(backbone):
    teacher = Teacher(ARCHITECTURES[backbone])
    levels = teacher(torch.empty(2, 3, 256, 256, dtype=torch.uint8))
    assert [level.shape for level in levels] == [feature.shape for feature in features(backbone)]
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


# Millions of parameters that RD4AD's code uses with each teacher, counted there (its bottleneck holds an unused
# 1x1 convolution besides).
@pytest.mark.parametrize(
    ("backbone", "bottleneck", "decoder"),
    [("resnet18", 11.68, 3.70), ("resnet50", 30.83, 15.82), ("wide_resnet50_2", 58.89, 24.92)],
)
def test_parameters_are_those_of_the_published_code(backbone, bottleneck, decoder):
    architecture = ARCHITECTURES[backbone]
    msff = MSFF(architecture, channels=None)
    oce = stage(architecture, 4, msff.out_channels, stride=2)
    assert (count_parameters(msff) + count_parameters(oce)) / 1e6 == pytest.approx(bottleneck, abs=0.005)
    assert count_parameters(Decoder(architecture)) / 1e6 == pytest.approx(decoder, abs=0.005)


@pytest.mark.parametrize("backbone", REAL)
@pytest.mark.parametrize("channels", [None, 48])
def test_msff_brings_levels_to_the_deepest_size(backbone, channels):
    msff = MSFF(ARCHITECTURES[backbone], channels)
    fused = msff(features(backbone))
    assert fused.shape == (2, channels or 3 * WIDTHS[backbone][2], 16, 16)
    assert msff.out_channels == fused.shape[1]


@pytest.mark.parametrize("layers", [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3)])
def test_msff_of_fewer_levels_keeps_the_size_and_has_no_idle_weights(layers):
    whole, part = MSFF(ARCHITECTURES["resnet18"], None), MSFF(ARCHITECTURES["resnet18"], None, layers)
    assert part(features("resnet18")).shape == (2, part.out_channels, 16, 16)
    assert part.out_channels == len(layers) * WIDTHS["resnet18"][2]
    used = [name for name in whole.state_dict() if name.startswith(tuple(f"down{level}." for level in layers))]
    assert list(part.state_dict()) == used


@pytest.mark.parametrize("backbone", ["resnet18", "wide_resnet50_2"])
@pytest.mark.parametrize("shallowest", [1, 2, 3])
def test_decoder_mirrors_the_teacher_down_to_its_shallowest_level(backbone, shallowest):
    decoder = Decoder(ARCHITECTURES[backbone], shallowest)
    rebuilt = decoder(torch.empty(2, WIDTHS[backbone][3], 8, 8))
    expected = dict(enumerate(features(backbone), start=1))
    assert {level: feature.shape for level, feature in rebuilt.items()} == {
        level: expected[level].shape for level in range(shallowest, 4)
    }
    assert set(decoder.stages) == {str(level) for level in rebuilt}


@pytest.mark.parametrize("backbone", REAL)
def test_the_full_method_rebuilds_each_level_and_maps_at_image_size(backbone, recipe, evaluation):
    teacher = Teacher(ARCHITECTURES[backbone])
    method = build_method(recipe(image_size=256, msff_channels="teacher"), teacher)
    levels = features(backbone)
    images = torch.empty(2, 3, 256, 256, dtype=torch.uint8)
    assert method.msff.out_channels == WIDTHS[backbone][2]
    rebuilt = method.rebuild(levels, masked=True)
    assert {level: feature.shape for level, feature in rebuilt.items()} == {
        level: feature.shape for level, feature in enumerate(levels, start=1)
    }
    assert method.loss(images, levels).shape == ()
    assert method.anomaly_maps(images, levels, evaluation()).shape == (2, 256, 256)


@pytest.mark.parametrize("layers", [(1,), (2,), (3,), (2, 3), (1, 3)])
def test_levels_left_out_are_neither_built_nor_scored(layers, recipe):
    teacher = Teacher(ARCHITECTURES["resnet18"])
    method = build_method(recipe(layers=layers), teacher)
    assert set(method.rebuild(features("resnet18"), masked=False)) == set(layers)
    assert set(method.fmm) == {str(level) for level in layers}
    assert set(method.decoder.stages) == {str(level) for level in range(min(layers), 4)}


def test_modules_switched_off_have_no_parameters(recipe):
    teacher = Teacher(ARCHITECTURES["resnet18"])

    def size(**changes):
        return count_parameters(build_method(recipe(**changes), teacher))

    full = size()
    assert size(simam=False) == full
    assert size(mask_ratio=0) == full
    assert size(scconv=False) < full
    assert size(fmm=False) == full - sum(c * c * 19 + 3 * c for c in (64, 128, 256))


@pytest.mark.parametrize("backbone", REAL)
def test_scconv_in_msff_replaces_its_convolutions_and_costs_less(backbone, recipe):
    teacher = Teacher(ARCHITECTURES[backbone])
    added, replacing = (
        build_method(recipe(scconv_place=place), teacher) for place in ("after_msff", "in_msff")
    )  # fmt: skip
    plain = build_method(recipe(scconv=False), teacher)
    assert replacing.msff(features(backbone)).shape == added.msff(features(backbone)).shape
    assert not list(replacing.scconv.parameters())
    assert count_parameters(replacing) < count_parameters(plain) < count_parameters(added)


@pytest.mark.parametrize("layers", [(1, 2, 3), (2,), (1, 3)])
def test_fmm_in_series_feeds_the_next_stage(layers, recipe):
    """A level that isn't distilled has no FMM. The deepest is the same in both places, and the next differs."""
    with torch.device("cpu"):
        teacher = Teacher(ARCHITECTURES["demo_resnet18"])
        torch.manual_seed(0)
        method = build_method(recipe(layers=layers, fmm_place="series"), teacher).eval()
        levels = teacher(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        outputs, codes = [], []
        method.fmm[str(max(layers))].register_forward_hook(lambda module, args, output: outputs.append(output))
        below = method.decoder.stages[str(max(layers) - 1)] if max(layers) > min(layers) else None
        if below:
            below.register_forward_hook(lambda module, args, output: codes.append(args[0]))
        rebuilt = method.rebuild(levels, masked=False)
        assert set(rebuilt) == set(layers)
        assert torch.equal(rebuilt[max(layers)], outputs[0])
        assert all(torch.equal(code, outputs[0]) for code in codes)
        assert bool(codes) == (len(layers) > 1)


def test_pyramid_has_neither_stage_4_nor_classifier():
    names = FeaturePyramid(ARCHITECTURES["resnet18"]).state_dict()
    assert not any(name.startswith(("layer4", "fc")) for name in names)
