"""Verify somebody else's models: test them again on your data and compare with their records. Trains nothing."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskrd.config.experiment import Experiment
from maskrd.config.files import METRICS_FILE, WEIGHTS_FILE, Files
from maskrd.config.record import METRICS, Record, read_record
from maskrd.engine.evaluation import EvaluationJob, evaluate
from maskrd.engine.machine import Machine
from maskrd.errors import MaskrdError
from maskrd.files import sha256_file


@dataclass(frozen=True)
class Verification:
    """A model's folder, and each metric in [0, 1] as a pair: recorded, and found now."""

    folder: Path
    metrics: dict[str, tuple[float, float]]

    @property
    def difference(self) -> float:
        """The largest difference of a metric."""
        return max((abs(found - recorded) for recorded, found in self.metrics.values()), default=0.0)


def verify_models(models: Path, experiment: Experiment, machine: Machine) -> Iterator[Verification]:
    """Test every model below a folder that has weights and a record.

    Raises MaskrdError if there is no such model, if weights aren't those of their record, and if images or teacher are
    missing or not those of the training.
    """
    records = sorted(path for path in models.rglob(METRICS_FILE) if path.with_name(WEIGHTS_FILE).exists())
    if not records:
        raise MaskrdError(
            f"{models}: no folder with both {WEIGHTS_FILE} and {METRICS_FILE}. Name the folder of the models."
        )
    for path in records:
        yield verify_model(path.parent, experiment, machine)


def verify_model(folder: Path, experiment: Experiment, machine: Machine) -> Verification:
    recorded = read_record(folder / METRICS_FILE)
    if sha256_file(folder / WEIGHTS_FILE) != recorded.evaluation.model_sha256:
        raise MaskrdError(
            f"{folder / METRICS_FILE}: belongs to other weights than the {WEIGHTS_FILE} beside it. "
            "Ask for the right pair."
        )
    with tempfile.TemporaryDirectory() as scratch:
        metrics = Path(scratch) / METRICS_FILE
        evaluate(
            _job(folder, recorded, experiment, machine),
            metrics,
            Path(scratch) / "scores.csv",
            Path(scratch) / "gallery.npz",
        )
        found = read_record(metrics)
    pairs = {name: (getattr(recorded, name), getattr(found, name)) for name in METRICS}
    return Verification(folder, {name: pair for name, pair in pairs.items() if None not in pair})


def _job(folder: Path, record: Record, experiment: Experiment, machine: Machine) -> EvaluationJob:
    files, training = Files(experiment), record.training
    if training.dataset not in experiment.datasets:
        raise MaskrdError(
            f"{folder}: its dataset {training.dataset} isn't in your configuration. Name the file that has it with "
            "--configfile."
        )
    needed = files.index(training.dataset, training.category), files.teacher(training.backbone)
    missing = [str(path) for path in needed if not path.exists()]
    if missing:
        command = f"snakemake --cores 2 {' '.join(missing)}"
        raise MaskrdError(f"{folder}: testing it needs {' and '.join(missing)}. Run `{command}` first.")
    data = files.data(training.dataset)
    return EvaluationJob(
        needed[0], data, needed[1], folder / WEIGHTS_FILE, record.evaluation.recipe, training.recipe, machine
    )
