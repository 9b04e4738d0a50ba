"""What an experiment costs, before it is run: models, FLOPs, hours on this machine, disk and memory.

FLOPs are those of convolutions and matrix products, counted on tensors without content; hours are FLOPs divided by
the rate of a short measurement.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from maskrd.data.counts import Counts, published_counts
from maskrd.data.index import Index
from maskrd.data.sources import Source, load_sources
from maskrd.errors import MaskrdError
from maskrd.experiment import Evaluation, Experiment, Model, Training, held_out_count
from maskrd.layers.resnet import count_parameters
from maskrd.methods import build_method
from maskrd.places import Places
from maskrd.runtime import autocast, choose_device, configure, describe, resolve_precision
from maskrd.teacher import ARCHITECTURES, Teacher
from maskrd.training import batches, build_optimizer

BATCH = 2  # images counted on: BatchNorm wants two, and all costs are proportional
STEPS = 3  # measured, after one to warm up
CPU_BATCH = 4  # a CPU's rate hardly depends on the batch, a GPU's does
BYTES = 4  # of a float32
T = TypeVar("T")


@dataclass(frozen=True)
class NetworkCost:
    """FLOPs and bytes of one image, in fp32, and parameters."""

    teacher_flops: float
    step_flops: float  # student, forward and backward
    test_flops: float  # teacher and student, to the anomaly map
    feature_bytes: float  # the teacher's, as kept between epochs
    activation_bytes: float  # what the backward pass needs
    parameters: int
    teacher_parameters: int

    def training_bytes(self, settings: Training, images: int, cache_bytes: float) -> float:
        """Of one training: student with gradients and Adam's moments, images, kept features, activations."""
        networks = BYTES * (4 * self.parameters + self.teacher_parameters)
        pixels = images * 3 * settings.image_size**2
        kept = self.kept_bytes(settings, images)
        return networks + pixels + (kept if kept <= cache_bytes else 0) + self.activation_bytes * settings.batch_size

    def kept_bytes(self, settings: Training, images: int) -> float:
        """Of the features of all images, if they are kept; bf16 halves them."""
        return self.feature_bytes * images / (2 if settings.precision == "bf16" else 1)


@cache
def network_cost(settings: Training, evaluation: Evaluation, backbone: str) -> NetworkCost:
    size = settings.crop or settings.image_size
    with torch.device("meta"):
        teacher = Teacher(ARCHITECTURES[backbone], settings.normalize)
        method = build_method(settings, teacher)
        images = torch.empty(BATCH, 3, size, size, dtype=torch.uint8)
        features, teacher_flops = counted(lambda: teacher(images))
        saved: dict[int, int] = {}
        with remember_saved(saved):
            _, step_flops = counted(lambda: method.train().loss(images, features).backward())
        with torch.no_grad():
            _, test_flops = counted(lambda: method.eval().maps_and_scores(images, evaluation))
    return NetworkCost(
        teacher_flops=teacher_flops / BATCH,
        step_flops=step_flops / BATCH,
        test_flops=test_flops / BATCH,
        feature_bytes=sum(feature.nbytes for feature in features) / BATCH,
        activation_bytes=sum(saved.values()) / BATCH,
        parameters=count_parameters(method),
        teacher_parameters=count_parameters(teacher),
    )


class FlopCounter(TorchDispatchMode):
    """Sums torch's FLOP formulas over the operations within; two for a multiplication and addition.

    torch's own FlopCounterMode also keeps track of modules, which fails where a method takes gradients while testing.
    """

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        formula = flop_registry.get(function.overloadpacket)
        if formula:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def counted(call: Callable[[], T]) -> tuple[T, int]:
    """What the call returns, and its FLOPs."""
    with FlopCounter() as counter:
        result = call()
    return result, counter.total


@contextmanager
def remember_saved(sizes: dict[int, int]) -> Iterator[None]:
    """Bytes of what autograd keeps for the backward pass, by storage, without parameters."""

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage._cdata] = storage.nbytes()  # its identity: tensors without content have no data_ptr
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield


@dataclass(frozen=True)
class Rate:
    """FLOP/s of training steps on this machine."""

    flops: float
    measured_on: str
    machine: str


def measure_rate(
    settings: Training, evaluation: Evaluation, backbone: str, device: str, threads: int, gpu_jobs: int = 1
) -> Rate:
    """A few steps as training makes them, but on random images, weights and features."""
    place = choose_device(device, gpu_jobs)
    configure(place, threads)
    precision = resolve_precision(settings.precision, place)
    batch = settings.batch_size if place.type == "cuda" else CPU_BATCH
    size = settings.crop or settings.image_size
    teacher = Teacher(ARCHITECTURES[backbone], settings.normalize).to(place, memory_format=torch.channels_last)
    method = build_method(settings, teacher).to(place, memory_format=torch.channels_last).train()
    optimizer = build_optimizer(settings, method)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=place)
    with autocast(place, precision):
        features = teacher(images)
    seconds = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        with autocast(place, precision):
            loss = method.loss(images, features)
        method.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the GPU
        seconds.append(time.perf_counter() - started)
    flops = network_cost(settings, evaluation, backbone).step_flops * batch
    machine = describe(place)["device"] + (f", {threads} threads" if place.type == "cpu" else "")
    return Rate(flops / statistics.median(seconds[1:]), f"{backbone}, batch {batch}, {precision}", machine)


def image_counts(places: Places) -> Counts | None:
    """From the category's index, or else the published number; None where there is neither."""
    if places.index.exists():
        index = Index.read(places.index)
        return Counts(len(index.train), len(index.test))
    return published_counts().get(places.model.dataset, {}).get(places.model.category)


@dataclass(frozen=True)
class Bill:
    """Sums over models. Images are passes: one seen in 200 epochs counts 200 times."""

    models: int = 0
    images: int = 0
    steps: int = 0
    flops: float = 0

    def __add__(self, other: "Bill") -> "Bill":
        return Bill(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


class Plan:
    """The cost of everything that an experiment's tables and figures need. `cache_gb` as in training.

    Raises MaskrdError where there are none.
    """

    def __init__(self, experiment: Experiment, cache_gb: float) -> None:
        self.experiment, self.cache_bytes = experiment, cache_gb * 1e9
        self.reports = {
            name: list(experiment.report(name).models()) for name in (*experiment.tables, *experiment.figures)
        }
        if not self.reports:
            raise MaskrdError("tables: none is configured, and no figure, so there is nothing to plan.")

    @cached_property
    def models(self) -> list[Model]:
        """Each once."""
        return list(dict.fromkeys(model for models in self.reports.values() for model in models))

    @cached_property
    def trained(self) -> dict[Model, Model]:
        """The model whose weights each uses: variants that differ in evaluation only share one."""
        return {model: self.experiment.trained_model(model) for model in self.models}

    @cached_property
    def counts(self) -> dict[Model, Counts | None]:
        return {model: image_counts(Places(self.experiment, model)) for model in self.models}

    @cached_property
    def uncounted(self) -> list[str]:
        """Categories that no bill includes, since nobody knows yet how many images they have."""
        return sorted({f"{model.dataset}/{model.category}" for model, count in self.counts.items() if not count})

    def settings(self, model: Model) -> tuple[Training, Evaluation]:
        recipe = self.experiment.recipe(model.dataset, model.variant)
        return recipe.training, recipe.evaluation

    @cached_property
    def costs(self) -> dict[Model, NetworkCost]:
        kinds = {(model.dataset, model.variant): self.settings(model) for model in self.models}
        return {model: network_cost(*kinds[model.dataset, model.variant], model.backbone) for model in self.models}

    def training_bill(self, model: Model) -> Bill:
        settings, count, cost = self.settings(model)[0], self.counts[model], self.costs[model]
        held_out = held_out_count(count.train, settings.validation_fraction)
        images = count.train - held_out
        kept = cost.kept_bytes(settings, count.train) <= self.cache_bytes
        flops = settings.epochs * (images * cost.step_flops + held_out * (cost.test_flops - cost.teacher_flops))
        flops += count.train * (1 if kept else settings.epochs) * cost.teacher_flops
        if settings.teacher_norm == "moving_average":
            flops += settings.teacher_norm_passes * images * cost.teacher_flops
        if settings.leaks:
            flops += settings.epochs * count.test * cost.test_flops
        steps = settings.epochs * len(batches(torch.arange(images), settings.batch_size))
        return Bill(1, settings.epochs * images, steps, flops)

    def bill(self, models: Iterable[Model]) -> Bill:
        """Training what they need and testing each, once."""
        known = {model for model in models if self.counts[model]}
        trained = {self.trained[model]: model for model in known}
        trainings = sum((self.training_bill(model) for model in trained.values()), Bill())
        tests = sum(self.counts[model].test * self.costs[model].test_flops for model in known)
        return trainings + Bill(flops=tests)

    def representative(self) -> Model:
        """What to measure: the smallest network of the method that most trainings are of."""
        methods = [self.settings(model)[0].method for model in self.models]
        commonest = max(dict.fromkeys(methods), key=methods.count)
        candidates = [model for model, method in zip(self.models, methods, strict=True) if method == commonest]
        return min(candidates, key=lambda model: self.costs[model].parameters)

    def disk_bytes(self) -> dict[str, float]:
        """Models, downloads (those without a known size left out) and the unpacked data sets, about as large."""
        trained = {self.trained[model]: self.costs[model] for model in self.models}
        datasets, weights = self.downloads()
        archives = sum(source.size or 0 for source in datasets)
        return {
            "models": BYTES * sum(cost.parameters for cost in trained.values()),
            "downloads": archives + sum(source.size or 0 for source in weights),
            "unpacked": archives,
        }

    def downloads(self) -> tuple[list[Source], list[Source]]:
        """Archives and weights that the user doesn't have."""
        sources, experiment = load_sources(self.experiment.sources), self.experiment
        used = {model.dataset for model in self.models}, {model.backbone for model in self.models}
        own = {name: dataset.path or dataset.archive for name, dataset in experiment.datasets.items()}
        datasets = [entry for name, entry in sources.datasets.items() if name in used[0] and not own[name]]
        weights = [
            entry for name, entry in sources.weights.items() if name in used[1] and not experiment.weights.get(name)
        ]
        return datasets, weights

    def memory_bytes(self) -> dict[Model, float]:
        """Of each training."""
        return {
            model: self.costs[model].training_bytes(self.settings(model)[0], count.train, self.cache_bytes)
            for model, count in self.counts.items()
            if count
        }


def overview(experiment: Experiment, threads: int, cache_gb: float, gpu_jobs: int = 1) -> Group:
    """The plan for the terminal. Takes some seconds: FLOPs are counted and a small network is measured."""
    plan = Plan(experiment, cache_gb)
    measured = plan.representative()
    rate = measure_rate(*plan.settings(measured), measured.backbone, experiment.device, threads, gpu_jobs)
    table = Table(title="What the tables and figures cost")
    table.add_column("")
    for name in ("models", "images seen", "steps", "PFLOP", "hours"):
        table.add_column(name, justify="right")
    for name, models in plan.reports.items():
        table.add_row(name, *_columns(plan.bill(models), rate))
    table.add_section()
    table.add_row("all, each model once", *_columns(plan.bill(plan.models), rate))
    return Group(table, *(Text(line) for line in _remarks(plan, rate)))


def _columns(bill: Bill, rate: Rate) -> list[str]:
    counts = [f"{value:,}" for value in (bill.models, bill.images, bill.steps)]
    return [*counts, *(_short(value) for value in (bill.flops / 1e15, bill.flops / rate.flops / 3600))]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _remarks(plan: Plan, rate: Rate) -> Iterator[str]:
    yield (
        f"Hours: one job at a time on {rate.machine}, at the {rate.flops / 1e9:,.0f} GFLOP/s that {rate.measured_on} "
        "reached just now beside whatever else was running. Other networks reach other rates: take it as an order of "
        "magnitude. Start-up, decoding and metrics come on top, some ten seconds a model."
    )
    disk = {name: f"{size / 1e9:,.1f} GB {name}" for name, size in plan.disk_bytes().items()}
    yield f"Disk: {', '.join(disk.values())}."
    memory = plan.memory_bytes()
    if memory:
        largest = max(memory, key=memory.__getitem__)
        size = f"{memory[largest] / 1e9:,.1f} GB"
        yield f"Memory: up to {size} in a training ({largest.path}, fp32), beside some 0.7 GB for torch."
    if plan.uncounted:
        yield f"Not counted, for want of an index: {', '.join(plan.uncounted)}."
