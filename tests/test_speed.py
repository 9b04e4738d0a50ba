"""Speed: every variant of a table at every batch size, measured on the models that it names."""

import json

import pytest
import torch

from maskrd.config.load import parse_experiment
from maskrd.engine import speed
from maskrd.engine.machine import Machine
from maskrd.engine.scoring import Scorer
from maskrd.engine.training import train
from maskrd.errors import MaskrdError

VARIANTS = ["no_fmm", "maskrd"]


@pytest.fixture
def report(config):
    config["tables"] = {
        "mine": {
            "dataset": "mvtec_ad", "rows": "variants", "variants": VARIANTS, "metrics": ["image_auroc"],
            "costs": True, "caption": "Mine.",
        }
    }  # fmt: skip
    return parse_experiment(config).view("mine")


def test_scores_every_variant_with_its_own_model(report, training_job, tmp_path, monkeypatch):
    jobs = [training_job(epochs=1, fmm=False), training_job(epochs=1)]
    models = [tmp_path / f"{variant}.safetensors" for variant in VARIANTS]
    for job, model in zip(jobs, models, strict=True):
        train(job)
        job.model.rename(model)
    scored = []
    score = Scorer.score
    monkeypatch.setattr(
        Scorer, "score", lambda self, x: (scored.append((self.settings.fmm, x.shape)), score(self, x))[1]
    )
    speed.write_speed(report, models, [jobs[0].teacher] * 2, tmp_path / "speed.json", Machine("cpu"))
    content = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert list(content["frames_per_second"]) == VARIANTS
    assert all(rate > 0 for rates in content["frames_per_second"].values() for rate in rates.values())
    assert content["machine"]["threads"] == 1
    shapes = {(fmm, (batch, 3, 32, 32)) for fmm in (False, True) for batch in (1, 16)}
    assert set(scored) == shapes
    assert len(scored) == len(shapes) * (speed.ROUNDS + 1)


def test_the_first_round_is_not_counted():
    calls = []
    seconds = speed.take_turns(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 3, torch.device("cpu")
    )
    assert calls == ["a"] * 3 + ["b"] * 3 + (["a"] * 3 + ["b"] * 3) * 2
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2}


def test_costs_are_for_rows_of_variants(config):
    config["tables"]["table1"]["costs"] = True
    with pytest.raises(MaskrdError, match=r"tables\.table1: .*costs: true needs rows: variants"):
        parse_experiment(config)
