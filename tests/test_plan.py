"""The bill before paying: counted as training runs it, each model once."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from maskrd import cli
from maskrd.config.experiment import Experiment
from maskrd.config.load import parse_experiment
from maskrd.data.index_file import Entry, Index
from maskrd.data.registry import published_counts
from maskrd.engine.inputs import load_inputs
from maskrd.engine.loop import Trainer
from maskrd.engine.machine import Machine
from maskrd.errors import MaskrdError
from maskrd.inspection.bill import Plan
from maskrd.inspection.flops import BATCH, NetworkCost, network_cost
from maskrd.inspection.plan import _card_remarks
from maskrd.inspection.timing import Timing, measure, median_seconds
from maskrd.layers.resnet import count_parameters
from maskrd.sources.registry import load_sources
from tests.conftest import ROOT


@pytest.fixture
def demo(default_config) -> Experiment:
    """The demo with table5 alone: no_fmm and maskrd on two categories."""
    small = yaml.safe_load((ROOT / "workflow/config/demo.yaml").read_text(encoding="utf-8"))
    datasets = {**default_config["datasets"], **small["datasets"]}
    table = {**default_config["tables"]["table5"], "dataset": "demo"}
    train = {**default_config["train"], **small["train"]}
    changes = {"datasets": datasets, "train": train, "tables": {"table5": table, "again": table}, "figures": {}}
    return parse_experiment({**default_config, **changes, "backbones": ["demo_resnet18"]})


def flops_of_torch(call: Callable, *arguments: object) -> int:
    with FlopCounterMode(display=False) as counter:
        call(*arguments)
    return counter.get_total_flops()


def test_published_counts_add_up(default_config):
    counts = published_counts("mvtec_ad").values()
    train, test = sum(count.train for count in counts), sum(count.test for count in counts)
    expected = {
        part.what: part.count for part in load_sources(ROOT / "workflow/sources.yaml")["datasets.mvtec_ad"].expected
    }
    assert (train, test) == (expected["training images"], expected["test images"])
    for dataset in ("mvtec_ad", "cifar10"):
        assert set(published_counts(dataset)) == set(default_config["datasets"][dataset]["categories"])


def flops_of_a_step(trainer: Trainer) -> int:
    trainer.prepare_features()
    return flops_of_torch(trainer.step, trainer.train_positions[:BATCH])


def test_flops_without_content_are_those_of_a_real_step(training_job, evaluation):
    trainer, recomputing = (Trainer(load_inputs(training_job(batch_size=BATCH, cache_gb=size))) for size in (1, 0))
    cost = network_cost(trainer.settings, evaluation(), "demo_resnet18")
    step, with_teacher = (flops_of_a_step(each) for each in (trainer, recomputing))
    assert cost.step_flops * BATCH == step > 0
    assert cost.teacher_flops * BATCH == with_teacher - step > 0
    assert cost.parameters == count_parameters(trainer.method)
    assert cost.feature_bytes * len(trainer.images) == sum(level.nbytes for level in trainer.features.cache)


@pytest.mark.parametrize("variant", ["rd", "stpm", "mkd", "msfd", "asymmetric"])
def test_every_method_can_be_counted(default_config, variant):
    recipe = parse_experiment(default_config).recipe("mvtec_ad", variant)
    backbone = "demo_vgg16" if variant == "mkd" else "demo_resnet18"
    cost = network_cost(recipe.training, recipe.evaluation, backbone)
    assert cost.step_flops > 0
    assert cost.test_flops > cost.teacher_flops > 0
    assert cost.activation_bytes > cost.feature_bytes


def test_a_bill_counts_every_model_once(demo):
    plan = Plan(demo, cache_gb=4)
    bill = plan.bill(plan.models)
    epochs, batch_size = demo.train["epochs"], demo.train["batch_size"]
    assert bill.models == 4
    assert bill.images == 4 * epochs * 48
    assert (bill.steps, 48 % batch_size) == (4 * epochs * 48 // batch_size, 0)
    assert plan.bill(plan.models * 2) == bill == plan.bill(plan.reports["again"])
    training = sum(epochs * 48 * cost.step_flops + 48 * cost.teacher_flops for cost in plan.costs.values())
    assert bill.flops == pytest.approx(training + sum(36 * cost.test_flops for cost in plan.costs.values()))


def test_steps_are_those_of_the_training(default_config):
    """Bottle's 209 images are 13 batches of 16: the last image joins its neighbours."""
    datasets = default_config["datasets"] | {"mvtec_ad": {"categories": ["bottle"]}}
    plan = Plan(parse_experiment({**default_config, "datasets": datasets, "backbones": ["resnet18"]}), cache_gb=4)
    (model,) = plan.reports["table1"]
    assert plan.training_passes(model).steps == 200 * 13


def test_held_out_images_and_what_a_teacher_learns_are_paid(demo):
    def flops(**changes: object) -> tuple[float, NetworkCost]:
        plan = Plan(demo.model_copy(update={"variants": {"maskrd": changes, "no_fmm": {"fmm": False}}}), cache_gb=4)
        (model,) = {model for model in plan.models if (model.variant, model.category) == ("maskrd", "weave")}
        return plan.training_passes(model).flops(plan.costs[model]), plan.costs[model]

    epochs, (plain, cost) = demo.train["epochs"], flops()
    forward = cost.test_flops - cost.teacher_flops
    assert 0 < forward < cost.step_flops
    saved = epochs * 12 * (cost.step_flops - forward)
    assert plain - flops(validation_fraction=0.25)[0] == pytest.approx(saved)
    followed, frozen = (flops(method="asymmetric", teacher_norm=norm)[0] for norm in ("moving_average", "frozen"))
    assert followed - frozen == pytest.approx(10 * 48 * cost.teacher_flops)


def test_bf16_features_take_half_the_memory(demo):
    cost = network_cost(*vars(demo.recipe("demo", "maskrd")).values(), "demo_resnet18")
    settings = demo.recipe("demo", "maskrd").training
    halved = settings.model_copy(update={"precision": "bf16"})
    assert 2 * cost.kept_bytes(halved, 48) == cost.kept_bytes(settings, 48)


def test_features_that_are_not_kept_are_paid_in_every_epoch(demo):
    kept, recomputed = Plan(demo, cache_gb=4), Plan(demo, cache_gb=0)
    more = (demo.train["epochs"] - 1) * 48 * sum(cost.teacher_flops for cost in kept.costs.values())
    assert recomputed.bill(kept.models).flops - kept.bill(kept.models).flops == pytest.approx(more)


def test_a_method_without_epochs_looks_twice(demo):
    """It takes means first, then what depends on them."""
    variants = demo.variants | {"maskrd": {"method": "padim"}}
    kept, recomputed = (Plan(demo.model_copy(update={"variants": variants}), cache_gb=size) for size in (4, 0))
    model = next(model for model in kept.models if model.variant == "maskrd")
    assert [plan.training_passes(model).teacher for plan in (kept, recomputed)] == [48, 2 * 48]


def test_choosing_on_the_test_set_pays_a_test_an_epoch(demo):
    honest, variants = Plan(demo, cache_gb=4), demo.variants | {"maskrd": {"checkpoint": "best_on_test"}}
    leaking = Plan(demo.model_copy(update={"variants": variants}), cache_gb=4)
    model = next(model for model in honest.models if model.variant == "maskrd")
    more = demo.train["epochs"] * 36 * honest.costs[model].test_flops
    costs = [plan.training_passes(model).flops(plan.costs[model]) for plan in (leaking, honest)]
    assert costs[0] - costs[1] == pytest.approx(more)


def test_an_index_counts_where_there_is_one(demo, tmp_path):
    entry = Entry("000.png")
    Index("demo", "weave", (entry,) * 16, (entry,) * 3, {"000.png": "0" * 64}).write(tmp_path / "data/demo/weave.json")
    plan = Plan(demo.model_copy(update={"results": tmp_path}), cache_gb=4)
    assert plan.bill(plan.models).images == 2 * demo.train["epochs"] * (16 + 48)
    assert not plan.uncounted


def test_a_category_without_a_known_count_is_named(demo, tmp_path):
    odd = demo.datasets["demo"].model_copy(update={"categories": ("weave", "screws")})
    plan = Plan(demo.model_copy(update={"results": tmp_path, "datasets": {**demo.datasets, "demo": odd}}), cache_gb=4)
    assert plan.uncounted == ["demo/screws"]
    assert plan.bill(plan.models).models == 2


def test_disk_memory_and_downloads(default_config):
    """Of real sizes: three models of ResNet18 on screw, one of which another is tested with."""
    datasets = default_config["datasets"] | {"mvtec_ad": {"categories": ["screw"]}}
    spec = {"dataset": "mvtec_ad", "rows": "variants", "metrics": ["aupro"], "caption": "c"}
    tables = {"t": spec | {"variants": ["maskrd", "mean_score", "no_fmm", "rd"]}}
    config = {**default_config, "datasets": datasets, "backbones": ["resnet18"], "tables": tables, "figures": {}}
    plan = Plan(parse_experiment(config), cache_gb=4)
    archives, weights = plan.downloads()
    assert [source.key for source in (*archives, *weights)] == ["datasets.mvtec_ad", "weights.resnet18"]
    costs = {model.variant: plan.costs[model] for model in plan.models}
    trained = [costs[variant].parameters for variant in ("maskrd", "no_fmm", "rd")]
    disk = plan.disk_bytes()
    assert disk["models"] == 4 * sum(trained)
    assert disk["downloads"] == archives[0].size + (weights[0].size or 0)
    assert disk["unpacked"] == archives[0].size
    cost, images = costs["maskrd"], 320 * 3 * 256**2
    networks = 4 * (4 * cost.parameters + cost.teacher_parameters)
    (memory,) = {plan.memory_bytes()[model] for model in plan.models if model.variant == "maskrd"}
    assert memory == networks + images + 320 * cost.feature_bytes + 16 * cost.activation_bytes
    own = {**config, "datasets": datasets | {"mvtec_ad": {"categories": ["screw"], "path": "mine"}}}
    assert Plan(parse_experiment(own), cache_gb=4).downloads()[0] == []


def test_a_call_takes_the_median_second(monkeypatch):
    """A clock that gives three calls one, two and nine seconds, when it is enough; the first call warms up."""
    ticks = iter([0, 0.1, 1, 1.2, 2, 9])
    monkeypatch.setattr("maskrd.inspection.timing.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    calls = []
    assert median_seconds(lambda: calls.append(1), torch.device("cpu")) == pytest.approx(0.2)
    assert len(calls) == 4


def test_every_part_of_a_job_is_timed(default_config):
    recipe = parse_experiment(default_config).recipe("mvtec_ad", "maskrd")
    settings = recipe.training.model_copy(update={"image_size": 32, "batch_size": 4})
    timing = measure(settings, recipe.evaluation, "demo_resnet18", Machine("cpu"))
    assert all(seconds > 0 for seconds in vars(timing).values())


def test_each_network_and_size_is_timed_by_itself(default_config):
    """ResNet18 is bound by other things than WideResNet50-2, so that one can't be told from the other."""
    plan = Plan(parse_experiment(default_config), cache_gb=4)
    timed = {(network.backbone, network.size) for network in plan.networks()}
    assert {("resnet18", 256), ("resnet50", 256), ("wide_resnet50_2", 256), ("wide_resnet50_2", 64)} <= timed
    assert {plan.network(model) for model in plan.models} == set(plan.networks())


def test_seconds_are_those_of_steps_tests_and_start_ups(demo):
    plan = Plan(demo, cache_gb=4)
    timings = dict.fromkeys(plan.networks(), Timing(image=0.1, update=0.01, teacher=0.02, test=0.03))
    (model,) = (m for m in plan.models if (m.variant, m.category) == ("maskrd", "weave"))
    epochs = demo.train["epochs"]
    step = epochs * (48 * 0.1 + 48 // demo.train["batch_size"] * 0.01)
    share = plan.costs[model].step_flops / max(cost.step_flops for cost in plan.costs.values())
    expected = share * (step + 48 * 0.02 + 36 * 0.03) + 2 * 5
    assert plan.seconds([model, model], timings, start=5) == pytest.approx(expected)


def test_says_how_many_trainings_a_card_holds(demo, monkeypatch):
    plan = Plan(demo, cache_gb=4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3.5 * (largest + 0.6e9), 24e9))
    largest = max(plan.memory_bytes().values())
    (line,) = _card_remarks(plan, torch.device("cuda"))
    assert "fits 3 times" in line
    assert "gpu=3" in line
    assert not list(_card_remarks(plan, torch.device("cpu")))


def test_nothing_configured_is_told(demo):
    with pytest.raises(MaskrdError, match="nothing to plan"):
        Plan(demo.model_copy(update={"tables": {}}), cache_gb=4)


def test_the_command_prints_the_bill(monkeypatch):
    monkeypatch.chdir(ROOT)
    command = ["plan", "--threads", "1", "--configfile", "workflow/config/demo.yaml"]
    result = CliRunner().invoke(cli.app, command, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "all, each model once" in result.output
    assert "s for a step of 8 images" in result.output
    assert "Memory" in result.output


@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_a_method_without_a_gradient_costs_the_teachers_work(recipe, evaluation, method):
    settings = recipe(method=method)
    cost = network_cost(settings, evaluation(), "demo_resnet18")
    assert (cost.step_flops, cost.activation_bytes) == (0, 0)
    assert cost.image_flops == cost.teacher_flops == cost.test_flops
    timing = measure(settings, evaluation(), "demo_resnet18", Machine("cpu"))
    assert timing.image == timing.update == 0
    assert timing.teacher == timing.test > 0
