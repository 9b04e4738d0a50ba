"""Models as ONNX graphs: equal to torch, and of use without it."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, ValueInfoProto

from maskrd.config.methods import METHODS, ExternalSettings
from maskrd.config.settings import Evaluation
from maskrd.config.teachers import ARCHITECTURES, VGG, Architecture
from maskrd.engine.export import build_graph, check_exportable, check_graph, export
from maskrd.engine.prediction import record_beside
from maskrd.engine.scoring import Scorer
from maskrd.errors import MaskrdError
from maskrd.files import sha256_file
from maskrd.layers.resnet import init_weights
from maskrd.methods import build_method
from maskrd.methods.base import OnePassMethod
from maskrd.methods.external import External
from maskrd.methods.teacher import Teacher
from tests.conftest import ROOT, SQUEEZE

SIDE = 64  # pixels


@pytest.fixture
def scorer_of(default_config, recipe, evaluation):
    """An untrained model of a variant of config.yaml, on a teacher of random weights."""

    def build(variant: str, architecture: Architecture | VGG, **testing) -> Scorer:
        values = default_config["variants"][variant]
        testing = {**{key: values[key] for key in Evaluation.model_fields if key in values}, **testing}
        changes = {key: value for key, value in values.items() if key not in (*testing, "backbone")}
        settings = recipe(**{**changes, "image_size": SIDE, "crop": None})
        torch.manual_seed(0)
        teacher = Teacher(architecture, settings.normalize)
        init_weights(teacher.pyramid)
        method, images = build_method(settings, teacher), torch.from_numpy(draw_images(6))
        if isinstance(method, OnePassMethod):
            method.learn(lambda positions: teacher(images[positions]), torch.arange(6).split(3))
        else:
            method.fit_teacher(images, torch.arange(6))
        method.adjust_teacher()
        return Scorer(variant, method.eval(), settings, evaluation(**testing), torch.device("cpu"))

    return build


def draw_images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)


def check(scorer: Scorer, path: Path) -> None:
    """Maps and scores must equal those of torch, to 1e-4 of the largest value; but MKD's maps, which are gradients."""
    onnx.save(build_graph(scorer), path)
    onnx.checker.check_model(path)
    check_graph(path, scorer)
    session = onnxruntime.InferenceSession(path)
    images = draw_images(2)
    maps, scores = session.run(["anomaly_map", "score"], {"images": images})
    expected_maps, expected_scores = scorer.score(images)
    np.testing.assert_allclose(maps, expected_maps, rtol=0, atol=scorer.method.export_tolerance * expected_maps.max())
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4)
    types = {part.type.tensor_type.elem_type for part in all_values(path)}
    assert TensorProto.FLOAT in types
    assert TensorProto.DOUBLE not in types


VARIANTS = {"rd": "maskrd", **{name: name for name in METHODS if name != "external"}}
DEMO = [name for name in ARCHITECTURES if name.startswith("demo_")]
PAIRS = [
    (variant, backbone)
    for variant, method in VARIANTS.items()
    for backbone in DEMO
    if METHODS[method].teacher_family == ARCHITECTURES[backbone].family
]


@pytest.mark.parametrize(("variant", "backbone"), PAIRS)
def test_a_graph_of_any_method_gives_what_torch_gives(scorer_of, tmp_path, variant, backbone):
    check(scorer_of(variant, ARCHITECTURES[backbone]), tmp_path / "model.onnx")


@pytest.mark.parametrize("backbone", [name for name in ARCHITECTURES if not name.startswith("demo_")])
def test_a_graph_of_any_backbone_gives_what_torch_gives(scorer_of, tmp_path, backbone):
    architecture = ARCHITECTURES[backbone]
    if isinstance(architecture, VGG):
        scorer = scorer_of("mkd", architecture)
    else:  # a block of each stage: the others are like it
        scorer = scorer_of("stpm", replace(architecture, depths=(1, 1, 1, 1)))
    check(scorer, tmp_path / "model.onnx")


def all_values(path: Path) -> list[ValueInfoProto]:
    """What lies between the nodes of a graph, with its types as ONNX infers them."""
    return list(onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph.value_info)


@pytest.fixture
def exported(tested, tmp_path) -> Path:
    """A model with a threshold and a crop, exported; `scores.csv` of its test set is in `results`."""
    job = tested(image_size=96, crop=64, validation_fraction=0.5)
    export(job.model, tmp_path / "model.onnx")
    (tmp_path / "images").mkdir()
    for path in sorted((job.data / "bolt/test/crack").iterdir()):
        shutil.copy(path, tmp_path / "images")
    # The program of the documentation.
    text = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    (tmp_path / "score.py").write_text(re.search(r"```python\n# score\.py\n(.*?)```", text, re.DOTALL)[1])
    return job.model


def check_scores(output: str, model: Path) -> None:
    lines = [line.split() for line in output.splitlines()]
    known = dict(line.split(",")[::2] for line in model.with_name("scores.csv").read_text().splitlines()[1:])
    assert [line[0] for line in lines] == ["000.png", "001.png"]
    threshold = record_beside(model).decision.threshold
    for name, score, anomalous in lines:
        assert float(score) == pytest.approx(float(known[f"test/crack/{name}"]), rel=1e-4)
        assert anomalous == str(float(score) > threshold)


def test_no_model_is_overwritten(tmp_path):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"mine")
    with pytest.raises(MaskrdError, match=r"model\.safetensors: .* must end in \.onnx"):
        export(model, model)
    assert model.read_bytes() == b"mine"


def test_the_documented_program_scores_a_folder_without_torch(exported, tmp_path):
    metadata = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    about = json.loads(metadata["maskrd"])
    assert (about["image_size"], about["crop"], about["category"]) == (96, 64, "bolt")
    assert about["training"]["method"] == "maskrd"
    assert about["threshold"] == record_beside(exported).decision.threshold
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not for this program')")
    (tmp_path / "maskrd.py").write_text("raise ImportError('nor is maskrd')")
    command = [sys.executable, "score.py", "model.onnx", "images"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    check_scores(result.stdout, exported)
    check_in_fresh_environment(tmp_path, exported)


def check_in_fresh_environment(folder: Path, model: Path) -> None:
    """The same in an environment of three packages, where one can be made."""
    uv, python = ROOT / ".venv/bin/uv", folder / "fresh/bin/python"
    steps = [
        [uv, "venv", "--quiet", "--python", sys.executable, folder / "fresh"],
        [uv, "pip", "install", "--quiet", "--python", python, "onnxruntime", "numpy", "pillow"],
    ]
    for step in steps:
        made = subprocess.run(step, capture_output=True, text=True, check=False) if uv.exists() else None
        if made is None or made.returncode:
            pytest.skip(f"no fresh environment can be made here: {made.stderr if made else 'there is no uv'}")
    for name in ("torch.py", "maskrd.py"):
        (folder / name).unlink()
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode != 0
    command = [python, "score.py", "model.onnx", "images"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    check_scores(result.stdout, model)


@pytest.fixture
def tested_file(tested, tmp_path):
    """Train and test a method in a file of the user's: the one above, with another last line."""

    def build(last: str) -> Path:
        path = tmp_path / "own.py"
        path.write_text(SQUEEZE.replace("return maps", last), encoding="utf-8")
        return tested(method=f"{path}:Squeeze", file_sha256=sha256_file(path)).model

    return build


def test_a_method_of_the_users_is_exported(tested_file, tmp_path):
    model = tested_file("return maps")
    export(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size > model.stat().st_size


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("return maps if maps.mean() > 0 else -maps", r"torch can't trace its maps \(Could not guard"),
        ("return torch.stack([part for part in maps])", "torch traced its maps for batches of 2 images only"),
        ("return maps + torch.rand(())", "the graph gives other values than torch for a batch of 1"),
    ],
)
def test_what_makes_no_graph_is_refused_by_name(tested_file, tmp_path, last, message):
    model = tested_file(last)
    with pytest.raises(MaskrdError, match=rf"own\.py:Squeeze can't be exported: {message}"):
        export(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_results_made_elsewhere_and_random_masks_are_refused_by_name(scorer_of):
    masked = scorer_of("maskrd", ARCHITECTURES["demo_resnet18"], mask_at_test=True)
    with pytest.raises(MaskrdError, match=r"model of maskrd can't be exported: .*mask_at_test"):
        check_exportable(masked)
    settings = ExternalSettings(method="external", maps="maps/{category}", image_size=SIDE, precision="fp32")
    testing = masked.evaluation.model_copy(update={"mask_at_test": False})
    elsewhere = replace(masked, settings=settings, evaluation=testing, method=External(settings, masked.teacher))
    with pytest.raises(MaskrdError, match=r"model of external can't be exported: its maps were made .* alone\.$"):
        check_exportable(elsewhere)
