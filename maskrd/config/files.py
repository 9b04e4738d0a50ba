"""Where every file of the pipeline is. The rules, the package and the tests ask here, and nowhere else.

Paths are relative to the folder that Snakemake works in, unless `results` is absolute. Rules need paths with wildcards:
`Files.any_model` and names such as "{table}" give them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from maskrd.config.experiment import Experiment
from maskrd.config.settings import Model
from maskrd.data.changes import memory_name
from maskrd.data.registry import is_generated

# The files in a model's folder.
WEIGHTS_FILE = "model.safetensors"
HISTORY_FILE = "history.csv"
METRICS_FILE = "metrics.json"
SCORES_FILE = "scores.csv"
GALLERY_FILE = "gallery.npz"

# All experiments in a folder share the data, so the data are not in `results`.
DATA = Path("data")
DOWNLOADS = DATA / "downloads"
# It records downloads that have no published checksum, and is copied along with them.
DIGESTS = DOWNLOADS / "digests.json"

ANY_MODEL = Model("{dataset}", "{category}", "{variant}", "{backbone}", "{seed}")  # wildcards of the rules
SEED = re.compile(r"seed\d+")  # a model's folder
EVERY_MODEL = Model("*", "*", "*", "*", "*")  # a pattern for `find_metrics`


def models_folder(results: Path) -> Path:
    return results / "models"


def metrics_file(models: Path, model: Model) -> Path:
    """The record of a model, in a folder of models."""
    return models / model.path / METRICS_FILE


def find_metrics(models: Path, pattern: Model) -> list[Path]:
    """The records that exist in a folder of models, sorted. A field of `pattern` may be "*"."""
    found = models.glob(f"{pattern.path}/{METRICS_FILE}")
    return sorted(path for path in found if SEED.fullmatch(path.parent.name))  # a copy such as seed0.bak is no model


def index_folder(results: Path, dataset: str) -> Path:
    return results / "data" / dataset


def downloaded_file(name: str) -> Path:
    return DOWNLOADS / name


def unpacked_marker(dataset: str) -> Path:
    """The file that is written when a downloaded dataset is unpacked."""
    return DATA / f"{dataset}.unpacked.json"


def data_log(rule: str, name: str) -> Path:
    """The log of a job that serves all experiments."""
    return DATA / "logs" / f"{rule}-{name}.log"


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model.

    `trained` is the model whose weights are used: variants that differ only in evaluation share one model.
    """

    results: Path
    model: Model
    trained: Model

    @property
    def weights(self) -> Path:
        return self._folder(self.trained) / WEIGHTS_FILE

    @property
    def history(self) -> Path:
        return self._folder(self.trained) / HISTORY_FILE

    @property
    def metrics(self) -> Path:
        return self._folder(self.model) / METRICS_FILE

    @property
    def scores(self) -> Path:
        return self._folder(self.model) / SCORES_FILE

    @property
    def gallery(self) -> Path:
        return self._folder(self.model) / GALLERY_FILE

    @property
    def maps(self) -> Path:
        """The folder of all anomaly maps of the category, for other people's code."""
        model = self.model
        run = Path(model.variant) / model.backbone / f"seed{model.seed}"
        return self.results / "anomaly_maps" / run / model.dataset / model.category

    @property
    def benchmark(self) -> Path:
        return self.results / "benchmarks" / "train" / f"{self.trained.path}.tsv"

    def log(self, rule: str) -> Path:
        model = self.trained if rule == "train" else self.model
        return self.results / "logs" / rule / f"{model.path}.log"

    def _folder(self, model: Model) -> Path:
        return models_folder(self.results) / model.path


@dataclass(frozen=True)
class Files:
    """The files of an experiment."""

    experiment: Experiment

    @property
    def results(self) -> Path:
        return self.experiment.results

    @property
    def models(self) -> Path:
        return models_folder(self.results)

    @property
    def store(self) -> Path:
        """The folder of finished and unfinished trainings. No rule has it as output: Snakemake deletes outputs."""
        return self.results / "store"

    def model(self, model: Model) -> ModelFiles:
        return ModelFiles(self.results, model, self.experiment.trained_model(model))

    @property
    def any_model(self) -> ModelFiles:
        """Paths with wildcards."""
        return ModelFiles(self.results, ANY_MODEL, ANY_MODEL)

    def log(self, rule: str, *names: str) -> Path:
        """The log of a job that isn't about one model."""
        return self.results / "logs" / f"{'/'.join((rule, *names))}.log"

    def data(self, dataset: str) -> Path:
        """The folder of a dataset: the user's own, or the one that the pipeline fills."""
        made = self.results / "generated" if is_generated(dataset) else DATA
        return self.experiment.datasets[dataset].path or made / dataset

    def generated_marker(self, dataset: str, part: str) -> Path:
        """The file that is written when a part of a generated dataset is complete."""
        return self.results / "generated" / dataset / f"{part}.generated"

    def index(self, dataset: str, category: str) -> Path:
        return index_folder(self.results, dataset) / f"{category}.json"

    def image_memory(self, dataset: str, category: str) -> Path:
        """Sizes, dates and digests of the images as they were indexed, to notice changes."""
        return index_folder(self.results, dataset) / memory_name(category)

    def teacher(self, backbone: str) -> Path:
        return self.results / "teachers" / f"{backbone}.safetensors"

    def table(self, name: str, suffix: str) -> Path:
        return self.results / "tables" / f"{name}.{suffix}"

    def paired(self, name: str, suffix: str) -> Path:
        """The differences between an ablation's variants and the full method."""
        return self.results / "tables" / f"{name}_paired.{suffix}"

    def speed(self, table: str) -> Path:
        return self.results / "speed" / f"{table}.json"

    def figure(self, name: str, suffix: str) -> Path:
        return self.results / "figures" / f"{name}.{suffix}"

    def supplement(self, suffix: str) -> Path:
        return self.results / f"supplement.{suffix}"

    @property
    def audit(self) -> Path:
        return self.results / "audit.csv"

    @property
    def claims(self) -> Path:
        return self.results / "claims.csv"

    def verdict(self, suffix: str) -> Path:
        return self.results / f"verdict.{suffix}"

    def report(self, name: str) -> Path:
        """A file of the report's folder; `index.html` is its first page."""
        return self.results / "report" / name

    @property
    def report_archive(self) -> Path:
        return self.results / "report.zip"
