"""The cost of an experiment before it is run: models, images, FLOPs, seconds, disk and memory, summed over models."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from maskrd.config.experiment import Experiment
from maskrd.config.files import Files
from maskrd.config.settings import Evaluation, Model, Training, held_out_count
from maskrd.data.description import Counts
from maskrd.data.index_file import Index
from maskrd.data.registry import published_counts
from maskrd.engine.sampling import batches
from maskrd.errors import MaskrdError
from maskrd.inspection.flops import BYTES, NetworkCost, network_cost
from maskrd.inspection.timing import Timing
from maskrd.sources.registry import Source, load_sources


def image_counts(files: Files, model: Model) -> Counts | None:
    """The number of images: from the category's index, or else as published. None if neither is known."""
    path = files.index(model.dataset, model.category)
    if path.exists():
        index = Index.read(path)
        return Counts(len(index.train), len(index.test))
    return published_counts(model.dataset).get(model.category)


@dataclass(frozen=True)
class Passes:
    """How often one job passes its images through the networks. An image seen in 200 epochs counts 200 times."""

    trained: int = 0  # forward and backward through the student
    steps: int = 0  # updates of its weights
    teacher: int = 0  # through the teacher alone
    validated: int = 0  # forward through the student
    tested: int = 0  # through both, to the anomaly map

    def flops(self, cost: NetworkCost) -> float:
        student = cost.test_flops - cost.teacher_flops
        both = self.validated * student + self.tested * cost.test_flops
        return self.trained * cost.step_flops + self.teacher * cost.teacher_flops + both

    def seconds(self, timing: Timing) -> float:
        student = timing.test - timing.teacher
        both = self.validated * student + self.tested * timing.test
        return self.trained * timing.image + self.steps * timing.update + self.teacher * timing.teacher + both


@dataclass(frozen=True)
class Bill:
    """Sums over trained models. `flops` includes those of testing."""

    models: int
    images: int
    steps: int
    flops: float


class Network(NamedTuple):
    """The settings that decide how long a step takes."""

    method: str
    backbone: str
    size: int
    batch_size: int
    precision: str


class Plan:
    """The cost of everything that an experiment's tables and figures need. `cache_gb` as in training.

    Raises MaskrdError if there are no tables and figures.
    """

    def __init__(self, experiment: Experiment, cache_gb: float) -> None:
        self.experiment, self.cache_bytes = experiment, cache_gb * 1e9
        self.reports = {
            name: list(experiment.view(name).models()) for name in (*experiment.tables, *experiment.figures)
        }
        if not self.reports:
            raise MaskrdError("tables: empty, and so is figures. There is nothing to plan. Configure a table.")

    @cached_property
    def models(self) -> list[Model]:
        """Each once."""
        return list(dict.fromkeys(model for models in self.reports.values() for model in models))

    @cached_property
    def trained(self) -> dict[Model, Model]:
        """The model whose weights each model uses. Variants that differ only in evaluation share one."""
        return {model: self.experiment.trained_model(model) for model in self.models}

    @cached_property
    def counts(self) -> dict[Model, Counts | None]:
        return {model: image_counts(Files(self.experiment), model) for model in self.models}

    @cached_property
    def uncounted(self) -> list[str]:
        """Categories that no bill includes, because their number of images isn't known yet."""
        return sorted({f"{model.dataset}/{model.category}" for model, count in self.counts.items() if not count})

    def settings(self, model: Model) -> tuple[Training, Evaluation]:
        recipe = self.experiment.recipe(model.dataset, model.variant)
        return recipe.training, recipe.evaluation

    @cached_property
    def costs(self) -> dict[Model, NetworkCost]:
        kinds = {(model.dataset, model.variant): self.settings(model) for model in self.models}
        return {model: network_cost(*kinds[model.dataset, model.variant], model.backbone) for model in self.models}

    def training_passes(self, model: Model) -> Passes:
        settings, count, cost = self.settings(model)[0], self.counts[model], self.costs[model]
        held_out = held_out_count(count.train, settings.validation_fraction)
        images = count.train - held_out
        kept, passes = cost.kept_bytes(settings, count.train) <= self.cache_bytes, settings.feature_passes
        return Passes(
            trained=settings.epochs * images,
            steps=settings.epochs * len(batches(torch.arange(images), settings.batch_size)),
            teacher=count.train * (min(passes, 1) if kept else passes) + settings.teacher_passes * images,
            validated=settings.epochs * held_out,
            tested=settings.epochs * count.test if settings.leaks else 0,
        )

    def jobs(self, models: Iterable[Model]) -> list[tuple[Model, Passes]]:
        """The training and test jobs of these models, each once. Models with an unknown image count are left out."""
        known = list(dict.fromkeys(model for model in models if self.counts[model]))
        trained = {self.trained[model]: model for model in known}
        trainings = [(model, self.training_passes(model)) for model in trained.values()]
        return trainings + [(model, Passes(tested=self.counts[model].test)) for model in known]

    def bill(self, models: Iterable[Model]) -> Bill:
        jobs = self.jobs(models)
        trainings = [passes for _, passes in jobs if passes.steps]
        return Bill(
            models=len(trainings),
            images=sum(passes.trained for passes in trainings),
            steps=sum(passes.steps for passes in trainings),
            flops=sum(passes.flops(self.costs[model]) for model, passes in jobs),
        )

    def networks(self) -> dict[Network, Model]:
        """The networks to time, each with its most expensive model. Variants of a network hardly differ."""
        ordered = sorted(self.models, key=lambda model: self.costs[model].image_flops)
        return {self.network(model): model for model in ordered}

    def network(self, model: Model) -> Network:
        settings = self.settings(model)[0]
        size = settings.crop or settings.image_size
        return Network(settings.method, model.backbone, size, settings.batch_size, settings.precision)

    def seconds(self, models: Iterable[Model], timings: Mapping[Network, Timing], start: float) -> float:
        """Seconds of all jobs one after the other, without decoding images and metrics. `start`: start-up of a job."""
        measured = self.networks()
        total = 0.0
        for model, passes in self.jobs(models):
            network = self.network(model)
            share = self.costs[model].image_flops / self.costs[measured[network]].image_flops
            total += start + share * passes.seconds(timings[network])
        return total

    def disk_bytes(self) -> dict[str, float]:
        """Bytes of models, of downloads (only those of known size) and of unpacked datasets (about as large)."""
        trained = {self.trained[model]: self.costs[model] for model in self.models}
        datasets, weights = self.downloads()
        archives = sum(source.size or 0 for source in datasets)
        return {
            "models": BYTES * sum(cost.parameters for cost in trained.values()),
            "downloads": archives + sum(source.size or 0 for source in weights),
            "unpacked": archives,
        }

    def downloads(self) -> tuple[list[Source], list[Source]]:
        """The archives and weights that must be downloaded: the user has no file of their own."""
        sources, experiment = load_sources(self.experiment.sources), self.experiment
        used = {model.dataset for model in self.models}, {model.backbone for model in self.models}
        own = {name: dataset.path or dataset.archive for name, dataset in experiment.datasets.items()}
        datasets = [entry for name, entry in sources.datasets.items() if name in used[0] and not own[name]]
        weights = [
            entry for name, entry in sources.weights.items() if name in used[1] and not experiment.weights.get(name)
        ]
        return datasets, weights

    def memory_bytes(self) -> dict[Model, float]:
        """The memory of each training."""
        return {
            model: self.costs[model].training_bytes(self.settings(model)[0], count.train, self.cache_bytes)
            for model, count in self.counts.items()
            if count
        }
