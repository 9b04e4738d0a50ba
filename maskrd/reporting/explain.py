"""From a table's cell to its models: what made a number, and the commands that make it again."""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from maskrd.errors import MaskrdError
from maskrd.experiment import Evaluation, Experiment, Model, Training, unknown_key
from maskrd.places import Places
from maskrd.reporting.runs import Run, read_run

DETAILED = 3  # more models than this get one line each


def find_models(experiment: Experiment, name: str, cell: Sequence[str]) -> list[Model]:
    """The models behind a table or figure, or behind the part of it that the words of `cell` name.

    Each word is a category, variant, backbone or seed0, seed1, ...; `mean` is all categories. Raises MaskrdError for
    a name that isn't there.
    """
    if name not in (*experiment.tables, *experiment.figures):
        raise MaskrdError(unknown_key("tables", name, [*experiment.tables, *experiment.figures]))
    models = list(experiment.report(name).models())
    for word in cell:
        if word != "mean":
            chosen = [model for model in models if word in _words(model)]
            if not chosen:
                raise MaskrdError(unknown_key(name, word, sorted({known for m in models for known in _words(m)})))
            models = chosen
    return models


def _words(model: Model) -> tuple[str, ...]:
    return model.category, model.variant, model.backbone, f"seed{model.seed}"


def explain(experiment: Experiment, name: str, cell: Sequence[str]) -> Iterator[str]:
    """Lines of text: one for each model, and for up to three models all that is known of them."""
    models = find_models(experiment, name, cell)
    runs = [read_run(experiment.results / "models", model) for model in models]
    done = sum(run is not None for run in runs)
    yield f"{' '.join([name, *cell])}: {done} of {len(models)} models done, in {experiment.results / 'models'}"
    for model, run in zip(models, runs, strict=True):
        yield f"  {model.path}  {_metrics(run)}"
    if len(models) > DETAILED:
        known = next((model for model, run in zip(models, runs, strict=True) if run), models[0])
        yield f"For all that is known of one, add its name to the command: {known.category} {known.variant}"
        return
    for model, run in zip(models, runs, strict=True):
        yield ""
        yield from _details(Places(experiment, model), run)


def _metrics(run: Run | None) -> str:
    if run is None:
        return "not run"
    return "  ".join(f"{metric} {value:.2f}" for metric, value in run.values.items() if value is not None)


def _details(places: Places, run: Run | None) -> Iterator[str]:
    yield places.model.path
    facts = {} if run is None else _facts(places, run)
    facts["metrics"] = _existing(places.metrics)
    facts["scores"] = _existing(places.metrics.with_name("scores.csv"))
    facts["model"] = _existing(places.weights)
    facts["training curve"] = _existing(places.history)
    facts["logs"] = f"{_existing(places.log('train'))}, {_existing(places.log('evaluate'))}"
    facts["resources"] = _existing(places.benchmark)
    yield from (f"  {key:15} {value}" for key, value in facts.items())
    yield f"  To make it, with all that it needs: snakemake --cores 8 -- {shlex.quote(str(places.metrics))}"
    yield "  (and the --configfile of this command). Its two jobs alone, where index and teacher are there:"
    training, evaluation = ({}, {}) if run is None else (run.training, run.evaluation)
    yield f"    {shlex.join(places.train_command(training.get('threads')))}"
    yield f"    {shlex.join(places.evaluate_command(evaluation.get('threads')))}"


def _facts(places: Places, run: Run) -> dict[str, str]:
    training, evaluation = run.training, run.evaluation
    facts = {
        "values (%)": _metrics(run),
        "seed": str(training["seed"]),
        "recipe": _settings(training["recipe"]),
        "evaluation": _settings(evaluation["recipe"]),
        "images": f"{training['images']} for training, {evaluation['images']} for testing",
        "epochs": f"{training['epochs']}, {training['parameters']:,} parameters",
        "seconds": f"{training['seconds']} for training, {evaluation['seconds']} for testing",
        "device": f"{_device(training)}; testing: {_device(evaluation)}",
        "versions": ", ".join(f"{name} {training[name]}" for name in ("maskrd", "torch", "python")),
        "git commit": f"{_commit(training)}; testing: {_commit(evaluation)}",
    }
    for name in ("data", "teacher", "weights"):
        facts[f"{name} sha256"] = training[f"{name}_sha256"]
    facts["model sha256"] = evaluation["model_sha256"]
    wanted = places.experiment.recipe(places.model.dataset, places.model.variant)
    retrained = _changed(_training_now(places, run), run.training["recipe"], Training)
    retested = _changed(wanted.evaluation.model_dump(mode="json"), run.evaluation["recipe"], Evaluation)
    if retrained:
        facts["now configured"] = f"{retrained}: the commands below train another model"
    if retested:
        facts["now tested with"] = f"{retested}: the commands below test it otherwise"
    return facts


def _commit(part: dict) -> str:
    return part.get("commit") or "not recorded"


def _device(part: dict) -> str:
    return part["device"] + (f", threads {part['threads']}" if "threads" in part else "")


def _settings(recipe: dict) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in recipe.items())


def _training_now(places: Places, run: Run) -> dict:
    wanted = places.experiment.recipe(places.model.dataset, places.trained.variant).training.model_dump(mode="json")
    if wanted["precision"] == "auto":
        wanted["precision"] = run.training["recipe"].get("precision")
    return wanted


def _changed(wanted: dict, recipe: dict, section: type[Training | Evaluation]) -> str:
    """Settings of the configuration that differ from those the model records; what it doesn't, had its default."""
    required = {key: wanted[key] for key, field in section.model_fields.items() if field.is_required()}
    recorded = section(**required | recipe).model_dump(mode="json")
    return ", ".join(f"{key} {json.dumps(wanted[key])}" for key in recorded if wanted[key] != recorded[key])


def _existing(path: Path) -> str:
    return str(path) if path.exists() else f"{path} (not there)"
