"""Checks of a whole configuration: values that are fine by themselves and wrong together."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

from maskrd.config.experiment import Experiment
from maskrd.config.messages import unknown_key
from maskrd.config.methods import ExternalSettings, all_setting_names
from maskrd.config.settings import Dataset, Evaluation, Training
from maskrd.config.teachers import ARCHITECTURES
from maskrd.data.registry import DATASETS, LAYOUTS, find_layout
from maskrd.errors import MaskrdError

# The names of the workflow's rules. A table or figure is a target, too, so it can't have one of these names.
RULES = frozenset(
    [
        "anomaly_maps",
        "audit",
        "curves",
        "download",
        "downloads",
        "evaluate",
        "figure",
        "generate",
        "index",
        "maps",
        "models",
        "paired",
        "pdf",
        "pretrain",
        "report",
        "robustness",
        "speed",
        "supplement",
        "table",
        "tables",
        "teacher",
        "tex",
        "train",
        "unpack",
        "verdict",
    ]
)


def check(experiment: Experiment, shipped: dict[str, Any]) -> None:
    """Raises MaskrdError for what can't be meant; `shipped` is config.yaml without the user's files."""
    check_keys("train", experiment.train, all_setting_names())
    check_keys("evaluation", experiment.evaluation, list(Evaluation.model_fields))
    check_references(experiment)
    check_target_names(experiment)
    check_categories(experiment)
    check_scores(experiment)
    check_recipes(experiment, shipped)
    check_backbones(experiment)
    check_leaks(experiment)
    check_costs(experiment)
    check_external(experiment)


def check_keys(where: str, section: dict[str, Any], known: list[str]) -> None:
    unknown = [unknown_key(where, str(key), known) for key in section if key not in known]
    if unknown:
        raise MaskrdError("\n".join(unknown))


def check_references(experiment: Experiment) -> None:
    """Every table and figure names datasets and variants that exist."""
    for kind, entries in (("tables", experiment.tables), ("figures", experiment.figures)):
        for name, entry in entries.items():
            if entry.dataset not in experiment.datasets:
                raise MaskrdError(unknown_key(f"{kind}.{name}.dataset", entry.dataset, experiment.datasets))
            dataset = experiment.datasets[entry.dataset]
            if not can_be_had(entry.dataset, dataset):
                raise MaskrdError(
                    f"datasets.{entry.dataset}.path: missing, and {kind}.{name} needs it. The pipeline can't download "
                    f"{dataset.title}. Set the path to a folder in the layout of docs/data.md."
                )
            for variant in entry.variants:
                if variant not in experiment.variants:
                    raise MaskrdError(unknown_key(f"{kind}.{name}.variants", variant, experiment.variants))
    for variant, difference in experiment.variants.items():
        if difference.get("backbone", experiment.backbone) not in list(ARCHITECTURES):  # it may be a list itself
            where = f"variants.{variant}.backbone"
            raise MaskrdError(unknown_key(where, str(difference["backbone"]), ARCHITECTURES))


def check_target_names(experiment: Experiment) -> None:
    """Every table and figure can be asked for by its name, and has files of its own."""
    for kind, names in (("tables", experiment.tables), ("figures", experiment.figures)):
        for name in names:
            if name in RULES:
                raise MaskrdError(f"{kind}.{name}: `snakemake {name}` has another meaning. Choose another name.")
    for name in experiment.tables:
        if name.endswith("_paired"):
            raise MaskrdError(f"tables.{name}: files with this ending hold paired differences. Choose another name.")
        if name in experiment.figures:
            raise MaskrdError(f"figures.{name}: a table has this name. Choose another name.")


def can_be_had(name: str, dataset: Dataset) -> bool:
    """Whether the user has the images, or the pipeline downloads or makes them."""
    known = DATASETS.get(name)
    fetched = known and (known.downloaded or known.generator)  # an archive takes the place of a download
    return bool(dataset.path or fetched)


def check_categories(experiment: Experiment) -> None:
    """Report a misspelt category before the download, not after."""
    for name, dataset in experiment.datasets.items():
        known = find_layout(name, dataset.layout).categories
        fetched = not known and not (dataset.path or dataset.archive)
        if fetched:
            known = tuple(DATASETS[name].counts)
        for category in dataset.categories:
            if known and category not in known:
                problem = unknown_key(f"datasets.{name}.categories", category, known)
                raise MaskrdError(
                    f"{problem} Categories of your own need datasets.{name}.path." if fetched else problem
                )


def datasets_of(experiment: Experiment) -> dict[str, set[str]]:
    """The datasets of each variant's tables and figures. A variant in none must be right on all."""
    found: dict[str, set[str]] = {variant: set() for variant in experiment.variants}
    for entry in (*experiment.tables.values(), *experiment.figures.values()):
        for variant in entry.variants:
            found[variant].add(entry.dataset)
    return {variant: datasets or set(experiment.datasets) for variant, datasets in found.items()}


def check_scores(experiment: Experiment) -> None:
    """Every method has the image score that its variant wants, and maps of the levels that are scored."""
    for variant, datasets in datasets_of(experiment).items():
        for dataset in sorted(datasets):
            recipe = experiment.recipe(dataset, variant)
            _check_score(variant, recipe.training, recipe.evaluation)


def _check_score(variant: str, training: Training, evaluation: Evaluation) -> None:
    if evaluation.score not in training.scores:
        scores = " and ".join(training.scores)
        raise MaskrdError(
            f"variants.{variant}: method {training.method} doesn't have score {evaluation.score}. It has {scores}."
        )
    if not evaluation.score_layers:
        return
    layers = getattr(training, "layers", None)
    if layers is None or not set(evaluation.score_layers) <= set(layers):
        has = f"{training.method} has no map of a single level" if layers is None else f"its layers are {layers}"
        raise MaskrdError(f"variants.{variant}: score_layers {evaluation.score_layers} can't be scored: {has}.")


def check_recipes(experiment: Experiment, shipped: dict[str, Any]) -> None:
    """Two variants with one recipe are a mistake, most often a key that repeats its default.

    An exception: the user changed `train`, `evaluation` or a dataset to what a variant already has. Then both variants
    share one model.
    """
    before, datasets = _as_shipped(experiment, shipped), datasets_of(experiment)
    for other, variant in combinations(experiment.variants, 2):
        shown = datasets[variant] | datasets[other]
        if all(_are_equal(either, shown, variant, other) for either in (experiment, before)):
            raise MaskrdError(
                f"variants.{variant} and variants.{other} are the same recipe, so every number would be made twice. "
                f"Remove one, and use the other's name in the tables. Did you change config.yaml itself? Then write "
                f"the old value into one of the two variants."
            )


def _as_shipped(experiment: Experiment, shipped: dict[str, Any]) -> Experiment:
    """The experiment with config.yaml's settings, in its sections and in the datasets that it has."""
    known = shipped.get("datasets", {})
    datasets = {
        name: dataset.model_copy(update={key: known.get(name, {}).get(key) for key in Dataset.overriding})
        for name, dataset in experiment.datasets.items()
    }
    sections = {name: shipped[name] for name in ("train", "evaluation")}
    return experiment.model_copy(update={**sections, "datasets": datasets})


def _are_equal(experiment: Experiment, datasets: Iterable[str], variant: str, other: str) -> bool:
    backbones = {experiment.variants[name].get("backbone", experiment.backbone) for name in (variant, other)}
    try:
        return len(backbones) == 1 and all(
            experiment.recipe(name, variant) == experiment.recipe(name, other) for name in datasets
        )
    except MaskrdError:  # a variant that is valid with the user's own settings only, or on its own dataset
        return False


def check_backbones(experiment: Experiment) -> None:
    """MKD reads a VGG, every other method a ResNet."""
    for name in (*experiment.tables, *experiment.figures):
        view = experiment.view(name)
        for variant, training in view.training.items():
            for backbone in view.backbones_of(variant):
                if training.teacher_family not in (None, ARCHITECTURES[backbone].family):
                    raise MaskrdError(
                        f"{name}: variant {variant} (method {training.method}) needs a {training.teacher_family}, but "
                        f"its backbone is {backbone}. Set variants.{variant}.backbone. For a table with rows: "
                        "backbones, change `backbones`."
                    )


def check_costs(experiment: Experiment) -> None:
    """A result that was made elsewhere can't be timed here."""
    for name, table in experiment.tables.items():
        recipes = experiment.view(name).training.items()
        external = [variant for variant, training in recipes if isinstance(training, ExternalSettings)]
        if table.costs and external:
            raise MaskrdError(
                f"tables.{name}: variant {external[0]} has no costs, because its results were made elsewhere. Remove "
                "the variant, or set costs: false."
            )


def check_external(experiment: Experiment) -> None:
    """Maps made elsewhere are found by the names of the test images."""
    for name in (*experiment.tables, *experiment.figures):
        view = experiment.view(name)
        external = [variant for variant, training in view.training.items() if isinstance(training, ExternalSettings)]
        if external and not LAYOUTS[view.layout].has_files:
            raise MaskrdError(
                f"{name}: variant {external[0]} has maps made elsewhere. They are named after test images, and those "
                f"of {view.title} lie in one file. Remove the variant."
            )


def check_leaks(experiment: Experiment) -> None:
    """No table shows by accident a number that test images helped to choose."""
    for name in (*experiment.tables, *experiment.figures):
        view = experiment.view(name)
        leaking = [variant for variant, training in view.training.items() if training.leaks]
        if leaking and not getattr(view.spec, "leak", False):
            raise MaskrdError(
                f"{name}: variant {leaking[0]} has checkpoint: best_on_test, a leak: the test images choose its "
                "weights, so its numbers say nothing about other images. Remove the variant. If the table is meant "
                "to show how much such numbers gain, write `leak: true` into it."
            )
