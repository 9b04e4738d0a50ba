"""Explain a table's cell: the models behind a number, how they were made, and the commands that make them again."""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from maskrd.config.experiment import Experiment
from maskrd.config.files import Files
from maskrd.config.messages import unknown_key
from maskrd.config.record import JobRecord, Record, compare_settings, find_record
from maskrd.config.settings import Model, StrictData
from maskrd.errors import MaskrdError
from maskrd.inspection.commands import evaluate_command, train_command

DETAILED = 3  # more models than this get one line each


def find_models(experiment: Experiment, name: str, cell: Sequence[str]) -> list[Model]:
    """The models behind a table or figure, or behind the part of it that `cell` names.

    Each word of `cell` is a category, a variant, a backbone or a seed (seed0, seed1, ...); `mean` is all categories.
    Raises MaskrdError for an unknown name.
    """
    if name not in (*experiment.tables, *experiment.figures):
        raise MaskrdError(unknown_key("tables", name, [*experiment.tables, *experiment.figures]))
    models = list(experiment.view(name).models())
    for word in cell:
        if word != "mean":
            chosen = [model for model in models if word in _names_in_path(model)]
            if not chosen:
                known = {part for model in models for part in _names_in_path(model)}
                raise MaskrdError(unknown_key(name, word, sorted(known)))
            models = chosen
    return models


def _names_in_path(model: Model) -> tuple[str, ...]:
    return tuple(model.path.split("/")[1:])


def explain(experiment: Experiment, name: str, cell: Sequence[str]) -> Iterator[str]:
    """Lines of text: one for each model. For up to three models, all that is known about them follows."""
    models = find_models(experiment, name, cell)
    folder = Files(experiment).models
    records = [find_record(folder, model) for model in models]
    done = sum(record is not None for record in records)
    yield f"{' '.join([name, *cell])}: {done} of {len(models)} models done, in {folder}"
    for model, record in zip(models, records, strict=True):
        yield f"  {model.path}  {_metrics(record)}"
    if len(models) > DETAILED:
        known = next((model for model, record in zip(models, records, strict=True) if record), models[0])
        missing = [word for word in _names_in_path(known) if word not in cell]
        yield f"To see everything about one model, add its names to the command: {' '.join(missing)}"
        return
    for model, record in zip(models, records, strict=True):
        yield ""
        yield from _details(experiment, model, record)


def _metrics(record: Record | None) -> str:
    if record is None:
        return "not run"
    return "  ".join(f"{metric} {value:.2f}" for metric, value in record.percentages.items() if value is not None)


def _details(experiment: Experiment, model: Model, record: Record | None) -> Iterator[str]:
    files = Files(experiment).model(model)
    yield model.path
    facts = {} if record is None else _facts(experiment, model, record)
    facts["metrics"] = _existing(files.metrics)
    facts["scores"] = _existing(files.scores)
    facts["model"] = _existing(files.weights)
    facts["training curve"] = _existing(files.history)
    facts["logs"] = f"{_existing(files.log('train'))}, {_existing(files.log('evaluate'))}"
    facts["resources"] = _existing(files.benchmark)
    yield from (f"  {key:15} {value}" for key, value in facts.items())
    yield "  To make it, with all that it needs (if you gave --configfile here, give it there, too):"
    yield f"    snakemake --cores 8 -- {shlex.quote(str(files.metrics))}"
    yield "  Its two jobs alone, if index and teacher exist:"
    yield f"    {shlex.join(train_command(experiment, model, record and record.training.threads))}"
    yield f"    {shlex.join(evaluate_command(experiment, model, record and record.evaluation.threads))}"


def _facts(experiment: Experiment, model: Model, record: Record) -> dict[str, str]:
    training, evaluation = record.training, record.evaluation
    facts = {
        "values (%)": _metrics(record),
        "seed": str(training.seed),
        "recipe": _settings(training.recipe),
        "evaluation": _settings(evaluation.recipe),
        "images": f"{training.images} for training, {evaluation.images} for testing",
        "epochs": f"{training.epochs}, {training.parameters:,} parameters",
        "seconds": f"{training.seconds} for training, {evaluation.seconds} for testing",
        "device": f"{_device(training)}; testing: {_device(evaluation)}",
        "versions": f"maskrd {training.maskrd}, torch {training.torch}, python {training.python}",
        "git commit": f"{training.commit or 'not recorded'}; testing: {evaluation.commit or 'not recorded'}",
        "data sha256": training.data_sha256,
        "teacher sha256": training.teacher_sha256,
        "weights sha256": training.weights_sha256,
        "model sha256": evaluation.model_sha256,
    }
    retrained = _changed(
        training.recipe, experiment.recipe(model.dataset, experiment.trained_model(model).variant).training
    )
    retested = _changed(evaluation.recipe, experiment.recipe(model.dataset, model.variant).evaluation)
    if retrained:
        facts["not as configured"] = f"{retrained}. The commands below train another model"
    if retested:
        facts["not so tested"] = f"{retested}. The commands below test with the configured settings"
    return facts


def _device(job: JobRecord) -> str:
    return job.device + (f", threads {job.threads}" if job.threads else "")


def _settings(recipe: StrictData) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in recipe.model_dump(mode="json").items())


def _changed(recorded: StrictData, configured: StrictData) -> str:
    """The recorded settings that differ from the configured ones."""
    return ", ".join(map(str, compare_settings(recorded, configured.model_dump(mode="json"))))


def _existing(path: Path) -> str:
    return str(path) if path.exists() else f"{path} (not there)"
