"""An experiment's view of the store: which training belongs to which model, which are running, which are unused."""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from maskrd.config.experiment import Experiment
from maskrd.config.files import Files
from maskrd.config.settings import Model
from maskrd.engine.store import FINISHED, IDENTITY, PROGRESS, Stored, identity, stored_trainings
from maskrd.files import sha256_file

NAMING = ("dataset", "category", "seed", "recipe")  # the part of an identity that needs no file


def trained_models(experiment: Experiment) -> list[Model]:
    """Every model that the tables and figures train, once."""
    names = (*experiment.tables, *experiment.figures)
    models = (experiment.trained_model(model) for name in names for model in experiment.view(name).models())
    return list(dict.fromkeys(models))


def find_stored(experiment: Experiment, models: list[Model]) -> dict[Model, Stored | None]:
    """The folder of each model in the store. None if the model has no index or no teacher yet."""
    files, digest = Files(experiment), cache(sha256_file)
    found: dict[Model, Stored | None] = {}
    for model in models:
        index, teacher = files.index(model.dataset, model.category), files.teacher(model.backbone)
        found[model] = None
        if index.exists() and teacher.exists():
            recipe = experiment.recipe(model.dataset, model.variant).training
            found[model] = Stored.of(files.store, identity(recipe, model.seed, index, teacher, digest))
    return found


def unused_trainings(experiment: Experiment) -> list[Stored]:
    """The trainings that no configured model uses. A running training counts as used.

    A model without index or teacher may own any training of its recipe, category and seed. So these count as used, too.
    """
    found = find_stored(experiment, trained_models(experiment))
    used = {stored.digest for stored in found.values() if stored}
    possible = {_name_of(_named_part(experiment, model)) for model, stored in found.items() if not stored}
    return [
        stored
        for stored in stored_trainings(Files(experiment).store)
        if stored.digest not in used and _name_of(stored.read(IDENTITY)) not in possible and not stored.is_locked()
    ]


def _named_part(experiment: Experiment, model: Model) -> dict[str, Any]:
    recipe = json.loads(experiment.recipe(model.dataset, model.variant).training_json())
    return {"dataset": model.dataset, "category": model.category, "seed": model.seed, "recipe": recipe}


def _name_of(content: dict[str, Any]) -> str:
    return json.dumps({key: content.get(key) for key in NAMING}, sort_keys=True)


def describe_training(stored: Stored) -> str:
    """One line on a training in the store, for people."""
    content = stored.read(IDENTITY)
    recipe = content.get("recipe")
    method = recipe.get("method") if isinstance(recipe, dict) else None
    end = "finished" if stored.read(FINISHED) else "not finished"
    place = f"{content.get('dataset')}/{content.get('category')}, {method}, seed {content.get('seed')}"
    return f"{stored.digest[:12]}  {stored.size() / 1e6:9,.1f} MB  {place}, {end}"


def prune(experiment: Experiment, remove: bool) -> Iterator[str]:
    """The lines of `maskrd prune`. With `remove` it removes the trainings, but only files that the store wrote."""
    store, unused = Files(experiment).store, unused_trainings(experiment)
    for stored in unused:
        yield describe_training(stored)
    sizes = {stored: _only_here(stored) for stored in unused}
    total = len(stored_trainings(store))
    if not remove:
        yield (
            f"{len(unused)} of {total} trainings in {store} have no model in this configuration. The same command with "
            f"--yes removes them and frees {sum(sizes.values()) / 1e9:.2f} GB."
            if unused
            else f"Nothing to remove: all {total} trainings in {store} belong to models of this configuration."
        )
        return
    freed = [size for stored, size in sizes.items() if stored.remove_unless_locked()]
    yield f"{len(freed)} of {total} trainings in {store} removed, {sum(freed) / 1e9:.2f} GB freed."


def _only_here(stored: Stored) -> int:
    """Bytes that a removal frees: a file with a second link in results/models frees no space."""
    size = 0
    for path in stored.files():
        with suppress(FileNotFoundError):  # a training has begun, or another run removes it
            size += path.stat().st_size if path.stat().st_nlink == 1 else 0
    return size


def running_trainings(found: dict[Model, Stored | None]) -> Iterator[tuple[Model, dict[str, Any]]]:
    """The models in training, each with its progress. The progress is empty until the first epoch ends."""
    for model, stored in found.items():
        if stored and stored.is_locked():
            yield model, stored.read(PROGRESS)
