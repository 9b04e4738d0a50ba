"""The datasets of a configuration: completed with what the code knows of them, and checked against their folders."""

import re
from pathlib import Path

from maskrd.config.files import index_folder, models_folder
from maskrd.config.messages import unknown_key, unknown_word
from maskrd.config.settings import ALL, CATEGORY_NAME, Dataset
from maskrd.data.changes import is_folder, remembered_categories
from maskrd.data.registry import DATASETS, LAYOUTS, find_layout
from maskrd.errors import MaskrdError


def complete_datasets(datasets: dict[str, Dataset], results: Path) -> dict[str, Dataset]:
    """The datasets with layout, title and the names of all categories. `results` remembers those that were indexed.

    Raises MaskrdError where the layout or the categories can't be known.
    """
    return {name: _completed(name, dataset, results) for name, dataset in datasets.items()}


def find_stand_ins(datasets: dict[str, Dataset]) -> dict[str, str]:
    """The name of the dataset that stands for each other one. Raises MaskrdError if two stand for the same one."""
    found: dict[str, str] = {}
    for name, dataset in datasets.items():
        if dataset.stands_for:
            if dataset.stands_for not in datasets:
                raise MaskrdError(unknown_key(f"datasets.{name}.stands_for", dataset.stands_for, datasets))
            if datasets[dataset.stands_for].stands_for:  # perhaps itself
                raise MaskrdError(
                    f"datasets.{name}.stands_for: {dataset.stands_for} has stands_for itself. Name one without it."
                )
            other = found.setdefault(dataset.stands_for, name)
            if other != name:
                raise MaskrdError(
                    f"datasets.{name}.stands_for: {other} stands for {dataset.stands_for} already. Remove one of them."
                )
    return found


def _completed(name: str, dataset: Dataset, results: Path) -> Dataset:
    known = DATASETS.get(name)
    layout = known.layout.name if known else dataset.layout
    if known and dataset.layout not in (None, layout):
        raise MaskrdError(f"datasets.{name}.layout: {name} has the layout {layout}. Give your data another name.")
    if not known:
        _check_own(name, dataset)
    title = dataset.title or (known.title if known else name.replace("_", " ").capitalize())
    named = dataset.model_copy(update={"layout": layout, "title": title})
    if dataset.categories != ALL:
        return named
    return named.model_copy(update={"categories": _all_categories(name, named, results)})


def _check_own(name: str, dataset: Dataset) -> None:
    """A dataset that the code doesn't know must have a layout and a path."""
    if not dataset.layout:
        raise MaskrdError(
            f"datasets: {unknown_word(name, DATASETS)} A dataset of your own needs a layout ({', '.join(LAYOUTS)}) "
            "and a path."
        )
    if not dataset.path:
        remedy = "Unpack the archive, and set path to its folder" if dataset.archive else "Set it to the data's folder"
        raise MaskrdError(f"datasets.{name}.path: missing. {remedy}. The pipeline can't download this dataset.")


def _all_categories(name: str, dataset: Dataset, results: Path) -> tuple[str, ...]:
    """The categories that `categories: all` means.

    With a path: those in its folder, or those seen before if the folder is away. Without: those of the published data.
    """
    if not dataset.path:
        published = DATASETS[name].counts
        if not published:
            raise MaskrdError(f"datasets.{name}.categories: `all` means the categories in the folder. Set path to it.")
        return tuple(published)
    found = seen_categories(results, name) if is_away(dataset.path) else []
    if not found and not is_folder(dataset.path):
        raise missing_folder(name, dataset)
    found = found or find_in_folder(name, dataset)
    unfit = [category for category in found if not re.fullmatch(CATEGORY_NAME, category) or category.lower() == "mean"]
    if unfit:
        raise MaskrdError(
            f"{dataset.path / unfit[0]}: a category can't have this name. Allowed are letters, digits, _ . and -, but "
            f"not `mean`. Rename the folder, or list the other categories in datasets.{name}.categories."
        )
    return tuple(found)


def find_in_folder(name: str, dataset: Dataset) -> list[str]:
    """The categories that the folder of a dataset holds: at least one. Raises MaskrdError otherwise."""
    try:
        found = find_layout(name, dataset.layout).find_categories(dataset.path)
    except OSError as error:
        raise MaskrdError(f"datasets.{name}.path: {error.filename}: {error.strerror}. Make it readable.") from None
    if not found:
        raise MaskrdError(
            f"datasets.{name}.path: {dataset.path} holds nothing in the layout {dataset.layout}. Correct the path or "
            "the layout. docs/data.md shows all layouts."
        )
    return list(found)


def is_away(path: Path) -> bool:
    """Whether a folder is missing or empty, like the mount point of a disk that isn't mounted."""
    try:
        return next(path.iterdir(), None) is None
    except OSError:
        return not is_folder(path)


def missing_folder(name: str, dataset: Dataset) -> MaskrdError:
    return MaskrdError(
        f"datasets.{name}.path: the folder {dataset.path} does not exist. Correct the path, or mount its disk."
    )


def seen_categories(results: Path, name: str) -> list[str]:
    """The categories of a dataset that were indexed or trained on before."""
    trained = [path.name for path in (models_folder(results) / name).glob("[!.]*/")]
    return sorted({*remembered_categories(index_folder(results, name)), *trained})


def check_folders(datasets: dict[str, Dataset], results: Path) -> None:
    """Report a wrong path, a wrong layout or a misspelt category when a run is planned.

    The folder may be away if its categories were seen before: tables of trained models can be made without it.
    """
    for name, dataset in datasets.items():
        seen = set(seen_categories(results, name))
        unseen = [category for category in dataset.categories if category not in seen]
        if not dataset.path or not unseen:
            continue
        if is_away(dataset.path) and len(unseen) < len(dataset.categories):
            continue
        if not is_folder(dataset.path):
            raise missing_folder(name, dataset)
        found = find_in_folder(name, dataset)
        if find_layout(name, dataset.layout).folder_each:
            absent = [category for category in unseen if not is_folder(dataset.path / category)]
            if absent:
                problem = unknown_key(f"datasets.{name}.categories", absent[0], found)
                raise MaskrdError(f"{problem} The folder is {dataset.path}.")
