"""Where the files of a model are and the commands that make them, as the rules of the workflow have them."""

from dataclasses import dataclass
from pathlib import Path

from maskrd.experiment import GENERATED_DATASETS, Experiment, Model


@dataclass(frozen=True)
class Places:
    """Where the files of a model are, as the rules of the workflow have them."""

    experiment: Experiment
    model: Model

    @property
    def results(self) -> Path:
        return self.experiment.results

    @property
    def trained(self) -> Model:
        """The model whose weights are used: variants that differ in evaluation only share one."""
        return self.experiment.trained_model(self.model)

    def folder(self, model: Model) -> Path:
        return self.results / "models" / model.path

    @property
    def weights(self) -> Path:
        return self.folder(self.trained) / "model.safetensors"

    @property
    def history(self) -> Path:
        return self.folder(self.trained) / "history.csv"

    @property
    def metrics(self) -> Path:
        return self.folder(self.model) / "metrics.json"

    @property
    def index(self) -> Path:
        return self.results / "data" / self.model.dataset / f"{self.model.category}.json"

    @property
    def teacher(self) -> Path:
        return self.results / "teachers" / f"{self.model.backbone}.safetensors"

    @property
    def data(self) -> Path:
        dataset = self.model.dataset
        made = self.results / "generated" if dataset in GENERATED_DATASETS else Path("data")
        return self.experiment.datasets[dataset].path or made / dataset

    def log(self, rule: str) -> Path:
        return self.results / "logs" / rule / f"{self._job(rule)}.log"

    @property
    def benchmark(self) -> Path:
        return self.results / "benchmarks" / "train" / f"{self._job('train')}.tsv"

    @property
    def state(self) -> Path:
        return self.results / "state" / self._job("train")

    def _job(self, rule: str) -> str:
        return (self.trained if rule == "train" else self.model).path

    def train_command(self, threads: int | None = None) -> list[str]:
        """What rule `train` runs, but for threads, where not given, and jobs on a GPU: Snakemake gives these."""
        recipe = self.experiment.recipe(self.model.dataset, self.trained.variant)
        files = {"index": self.index, "data": self.data, "teacher": self.teacher}
        made = {"model": self.weights, "history": self.history, "state": self.state}
        settings = {"recipe": recipe.training_json(), "seed": self.model.seed}
        return _command("train", files | settings | made | self._machine(threads))

    def evaluate_command(self, threads: int | None = None) -> list[str]:
        """What rule `evaluate` runs, as `train_command`."""
        recipe = self.experiment.recipe(self.model.dataset, self.model.variant)
        files = {"index": self.index, "data": self.data, "teacher": self.teacher, "model": self.weights}
        recipes = {"recipe": recipe.training_json(), "evaluation": recipe.evaluation_json()}
        made = {"metrics": self.metrics, "scores": self.metrics.with_name("scores.csv")}
        return _command("evaluate", files | recipes | made | self._machine(threads))

    def _machine(self, threads: int | None) -> dict[str, object]:
        return {"device": self.experiment.device} | ({} if threads is None else {"threads": threads})


def _command(name: str, options: dict[str, object]) -> list[str]:
    pairs = [[f"--{key}", str(value)] for key, value in options.items()]
    return ["python", "-m", "maskrd", name, *(word for pair in pairs for word in pair)]
