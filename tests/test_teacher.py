import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskrd.config.teachers import ARCHITECTURES
from maskrd.errors import MaskrdError
from maskrd.layers.resnet import FeaturePyramid
from maskrd.methods.teacher import Teacher, export_teacher, load_teacher

REAL_WEIGHTS = Path(__file__).parents[2] / "shared/weights/resnet18_imagenet_stages1-3.safetensors"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return FeaturePyramid(ARCHITECTURES["resnet18"]).state_dict()


def complaint(weights: Path, output: Path) -> str:
    with pytest.raises(MaskrdError) as error:
        export_teacher("resnet18", weights, output)
    assert not output.exists()
    assert str(weights) in str(error.value)
    assert str(error.value).startswith("weights.resnet18: ")
    return str(error.value)


def test_missing_unexpected_and_misshapen_keys_are_named(state, tmp_path):
    wrong = dict(state)
    del wrong["conv1.weight"]
    wrong["layer9.weight"] = torch.zeros(1)
    wrong["bn1.bias"] = torch.zeros(7)
    save_file(wrong, tmp_path / "wrong.safetensors")
    message = complaint(tmp_path / "wrong.safetensors", tmp_path / "teacher.safetensors")
    assert "1 missing (conv1.weight)" in message
    assert "1 unexpected (layer9.weight)" in message
    assert "1 of another shape (bn1.bias)" in message


@pytest.mark.parametrize(
    ("key", "change", "problem"),
    [
        (
            "layer1.0.conv1.weight",
            lambda value: value.index_fill(0, torch.tensor([3]), float("nan")),
            "NaN or infinite",
        ),
        ("bn1.running_mean", lambda value: value + float("inf"), "NaN or infinite"),
        ("layer2.0.conv1.weight", torch.zeros_like, "all zero"),
        ("layer3.1.conv2.weight", lambda value: (1000 * value).int(), "not of a floating-point type"),
        ("conv1.weight", lambda value: value.to(torch.complex64), "not of a floating-point type"),
        ("bn1.running_var", lambda value: -value, "negative variances"),
    ],
)
def test_values_that_no_trained_network_has_are_named(state, tmp_path, key, change, problem):
    torch.save(state | {key: change(state[key])}, tmp_path / "weights.pth")
    message = complaint(tmp_path / "weights.pth", tmp_path / "teacher.safetensors")
    assert re.search(rf"Keys: 1 [^;]*{problem}[^;]* \({key}\)\. ", message)


def test_half_precision_weights_are_accepted(state, tmp_path):
    torch.save({name: value.half() for name, value in state.items()}, tmp_path / "weights.pth")
    export_teacher("resnet18", tmp_path / "weights.pth", tmp_path / "teacher.safetensors")
    teacher, _ = load_teacher(tmp_path / "teacher.safetensors")
    assert teacher.pyramid.conv1.weight.dtype == torch.float32


def test_weights_of_another_backbone_are_refused(tmp_path):
    other = FeaturePyramid(ARCHITECTURES["demo_resnet50"]).state_dict()
    save_file(other, tmp_path / "other.safetensors")
    assert "doesn't hold weights of resnet18" in complaint(tmp_path / "other.safetensors", tmp_path / "out.safetensors")


def test_missing_file_names_the_key(tmp_path):
    assert "does not exist. Correct the path" in complaint(tmp_path / "none.pth", tmp_path / "out.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", bytes(range(256)) * 8])
def test_files_of_something_else_are_refused(tmp_path, suffix, content):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert "can't be read as a .safetensors or .pth state dict" in complaint(path, tmp_path / "out.safetensors")


def test_truncated_weights_are_refused(state, tmp_path):
    for name, save in (("a.pth", torch.save), ("b.safetensors", save_file)):
        save(state, tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        assert "can't be read" in complaint(tmp_path / name, tmp_path / "out.safetensors")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, torch.zeros(2)])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    assert "doesn't hold a state dict" in complaint(tmp_path / "weights.pth", tmp_path / "out.safetensors")


def test_a_file_of_another_kind_is_refused_without_torchs_advice_to_load_it_unsafely(tmp_path):
    (tmp_path / "notes.md").write_text("# Notes\n", encoding="utf-8")
    message = complaint(tmp_path / "notes.md", tmp_path / "out.safetensors")
    assert "(it holds something else than weights). Name another file." in message


class Trap:
    """Unpickling it writes a file: what a malicious download would do."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"conv1.weight": Trap(tmp_path / "sprung")}, tmp_path / "weights.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for name in ("weights.pth", "bare.pth"):
        assert "can't be read" in complaint(tmp_path / name, tmp_path / "out.safetensors")
    assert not (tmp_path / "sprung").exists()


def test_published_files_with_stage_4_and_classifier_are_accepted(state, tmp_path):
    whole = {
        **{name: value for name, value in state.items() if not name.endswith("num_batches_tracked")},
        "layer4.0.conv1.weight": torch.zeros(512, 256, 3, 3),
        "fc.weight": torch.zeros(1000, 512),
        "fc.bias": torch.zeros(1000),
    }
    torch.save(whole, tmp_path / "resnet18-f37072fd.pth")
    export_teacher("resnet18", tmp_path / "resnet18-f37072fd.pth", tmp_path / "teacher.safetensors")
    teacher, description = load_teacher(tmp_path / "teacher.safetensors")
    assert description.backbone == "resnet18"
    torch.testing.assert_close(teacher.pyramid.conv1.weight, state["conv1.weight"])


def test_a_teacher_stays_frozen_and_in_evaluation_mode(teacher_file):
    teacher, _ = load_teacher(teacher_file)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    teacher.train()
    features = teacher(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert not any(module.training for module in teacher.modules())
    assert not any(feature.requires_grad for feature in features)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_images_are_normalised_as_imagenets():
    teacher = Teacher(ARCHITECTURES["demo_resnet18"])
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    torch.testing.assert_close(teacher.normalize(images)[0, :, 1, 1], torch.tensor(expected))


@pytest.mark.parametrize("damage", ["truncate", "other file", "missing"])
def test_a_damaged_teacher_file_is_named(teacher_file, tmp_path, damage):
    path = tmp_path / "teacher.safetensors"
    if damage == "truncate":
        path.write_bytes(teacher_file.read_bytes()[:-100])
    elif damage == "other file":
        save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(MaskrdError, match=r"teacher\.safetensors: not a teacher file"):
        load_teacher(path)


@pytest.mark.skipif(not REAL_WEIGHTS.exists(), reason="needs the real ResNet18 weights in ../shared")
def test_real_weights_give_timms_features(tmp_path):
    import timm

    export_teacher("resnet18", REAL_WEIGHTS, tmp_path / "teacher.safetensors")
    teacher, _ = load_teacher(tmp_path / "teacher.safetensors")
    reference = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3), pretrained=False)
    reference.load_state_dict(load_file(REAL_WEIGHTS), strict=False)
    images = torch.randint(0, 256, (1, 3, 96, 64), dtype=torch.uint8)
    mean, std = (torch.tensor(reference.default_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = reference.eval()((images / 255 - mean) / std)
    for ours, theirs in zip(teacher(images), expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
