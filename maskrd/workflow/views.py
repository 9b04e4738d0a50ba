"""Answers for the rules of tables, figures and the report: which files each is made from."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from maskrd import paper
from maskrd.config.experiment import Experiment
from maskrd.config.files import EVERY_MODEL, Files, find_metrics
from maskrd.config.settings import Model, canonical_json
from maskrd.data.changes import size_and_date
from maskrd.data.registry import LAYOUTS, is_generated
from maskrd.files import sha256_file, sha256_json

T = TypeVar("T")


def paper_digest() -> str:
    """A parameter of rules that changes when the paper's data are corrected. Then the rules run again."""
    files = sorted(Path(paper.__file__).parent.glob("*.*"))
    return sha256_json([sha256_file(path) for path in files])


@dataclass(frozen=True)
class ViewInputs:
    experiment: Experiment

    @cached_property
    def files(self) -> Files:
        return Files(self.experiment)

    @property
    def paper_tables(self) -> list[str]:
        """The configured tables that are the paper's."""
        return [name for name in self.experiment.tables if name in paper.TABLES]

    def shown(self) -> dict[str, Any]:
        """What the pages of `snakemake --report` say of the experiment."""
        experiment = self.experiment
        views = [experiment.view(name) for name in (*experiment.tables, *experiment.figures)]
        return {
            "captions": {view.name: view.caption for view in views},
            "datasets": {view.title: list(view.categories) for view in views},
            "generated": any(is_generated(view.spec.dataset) for view in views),
            "backbones": list(experiment.backbones),
            "seeds": list(experiment.seeds),
            "train": experiment.train,
        }

    def view_json(self, name: str) -> str:
        """The view of a table or figure as JSON. As a parameter of its rule, a changed caption rebuilds only it."""
        return canonical_json(self.experiment.view(name))

    def recipes_json(self, name: str) -> str:
        """The recipes of a table's variants as JSON: what its speed depends on."""
        view = self.experiment.view(name)
        parts = (view.training, view.evaluation)
        return json.dumps({name: [canonical_json(part[name]) for part in parts] for name in view.spec.variants})

    def models(self, name: str) -> list[Model]:
        return list(self.experiment.view(name).models())

    def weights(self, name: str) -> list[Path]:
        """The trained models of a table or figure."""
        return [self.files.model(model).weights for model in self.models(name)]

    def files_read(self, model: Model) -> list[Path]:
        """The user's files that a model is made of, other than images and teacher. If they change, it is made again."""
        return self.experiment.recipe(model.dataset, model.variant).training.files_read(model.category)

    def changed_files(self, model: Model) -> list[str]:
        """A parameter that changes when one of `files_read` does, even if the new file has an older date."""
        files = self.files_read(model)
        return [sha256_json([[str(path), size_and_date(path)] for path in files])] if files else []

    def map_folders(self) -> list[Path]:
        """The folders of anomaly maps of the trained models of all tables, each once.

        Without those whose test images have no files of their own, and so no names for maps.
        """
        named = {name for name, dataset in self.experiment.datasets.items() if LAYOUTS[dataset.layout].has_files}
        models = _distinct(model for name in self.experiment.tables for model in self.models(name))
        found = [self.files.model(model) for model in models if model.dataset in named]
        return [files.maps for files in found if files.weights.exists()]

    def metrics(self, table: str) -> list[Path]:
        """The metrics of a table's models. With `partial`, only those that exist."""
        return self._available(self._all_metrics(table))

    def galleries(self, figure: str) -> list[Path]:
        return [self.files.model(model).gallery for model in self.models(figure)]

    def timed_models(self, table: str) -> list[Model]:
        """One model of each variant of a table that shows costs."""
        models = self.models(table)
        first = models[0].category, models[0].seed
        return [model for model in models if (model.category, model.seed) == first]

    def speed(self, table: str) -> list[Path]:
        """The measured speeds of a table that shows costs. With `partial`, only if they exist."""
        return self._available([self.files.speed(table)] if self.experiment.tables[table].costs else [])

    def table_files(self, name: str) -> list[Path]:
        """All files of a table. An ablation also has the paired differences to the full method."""
        files = [self.files.table(name, suffix) for suffix in ("csv", "tex", "html")]
        if self.experiment.tables[name].rows == "variants":
            files += [self.files.paired(name, suffix) for suffix in ("csv", "html")]
        return files

    def figure_files(self, name: str) -> list[Path]:
        return [self.files.figure(name, suffix) for suffix in ("png", "pdf")]

    def metrics_digest(self, inputs: Iterable[Path] = ()) -> str:
        """A parameter of verdict and report that changes when metrics other than their `inputs` change.

        A verdict judges what exists, and must not start a training. So its metrics are not inputs.
        """
        known = set(inputs)
        found = [path for path in find_metrics(self.files.models, EVERY_MODEL) if path not in known]
        return sha256_json({path.as_posix(): sha256_file(path) for path in found})

    @cached_property
    def reported_tables(self) -> list[str]:
        """The tables of the report: the paper's, and all others that need no additional training or test."""
        planned = {file for name in self.paper_tables for file in self.metrics(name)}
        others = [name for name in self.experiment.tables if name not in self.paper_tables]
        return self.paper_tables + [name for name in others if self._costs_nothing(name, planned)]

    def reported_metrics(self) -> list[Path]:
        return _distinct(file for name in self.reported_tables for file in self.metrics(name))

    def histories(self, dataset: str) -> list[Path]:
        """The training curves of the models behind a dataset's reported tables."""
        tables = [name for name in self.reported_tables if self.experiment.tables[name].dataset == dataset]
        models = [model for name in tables for model in self.models(name)]
        return self._available(_distinct(self.files.model(model).history for model in models))

    def report_tables(self) -> list[Path]:
        return [file for name in self.reported_tables for file in self.table_files(name) if file.suffix == ".html"]

    def report_figures(self) -> list[Path]:
        names = [name for name in self.experiment.figures if self._is_available(self.galleries(name))]
        return [self.files.figure(name, "png") for name in names]

    def report_curves(self) -> list[Path]:
        datasets = dict.fromkeys(self.experiment.tables[name].dataset for name in self.reported_tables)
        return [self.files.report(f"curves_{name}.png") for name in datasets if self.histories(name)]

    def _all_metrics(self, table: str) -> list[Path]:
        return [self.files.model(model).metrics for model in self.models(table)]

    def _costs_nothing(self, table: str, planned: set[Path]) -> bool:
        if self.experiment.partial:  # shown if there is something to compare
            existing = {model.variant for model in self.models(table) if self.files.model(model).metrics.exists()}
            return len(existing) >= min(2, len(self.experiment.tables[table].variants))
        needed = {*self._all_metrics(table), *self.speed(table)} - planned
        return all(file.exists() for file in needed)

    def _available(self, files: Iterable[Path]) -> list[Path]:
        """All of them, or with `partial` those that exist."""
        return [file for file in files if not self.experiment.partial or file.exists()]

    def _is_available(self, files: list[Path]) -> bool:
        return self._available(files) == files


def _distinct(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
