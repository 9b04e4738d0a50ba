"""Configuration files: read strictly and merged.

The user's files are merged over config.yaml, and config.yaml over the catalogue (ablations, systems, more datasets).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

import maskrd
from maskrd.config.checks import check
from maskrd.config.datasets import check_folders, complete_datasets, find_stand_ins
from maskrd.config.experiment import Experiment
from maskrd.config.messages import nulls_read
from maskrd.errors import MaskrdError

REPOSITORY = Path(maskrd.__file__).parents[1]
DEFAULT = Path("config.yaml")
CATALOGUE = tuple(f"workflow/config/catalogue/{name}.yaml" for name in ("ablations", "datasets", "systems"))
SOURCES = "workflow/sources.yaml"
LARGEST = 100_000  # values in a file, with those that aliases repeat


def load_experiment(files: Sequence[Path] = ()) -> Experiment:
    """The experiment of the current folder: its config.yaml with `files` merged over it in their order.

    Raises MaskrdError if there is neither, for a file that can't be read, and for what `parse_experiment` refuses.
    """
    from snakemake.utils import update_config

    if not files and not DEFAULT.exists():
        raise MaskrdError(
            f"{DEFAULT}: no such file in this folder. Run the command in the repository, or name your own "
            "configuration with --configfile."
        )
    merged = read_configuration(DEFAULT) if DEFAULT.exists() else {}
    for path in files:
        update_config(merged, read_configuration(path))
    return build_experiment(merged, REPOSITORY.joinpath)


def build_experiment(
    config: dict[str, Any], locate: Callable[[str], Path], files: Iterable[str | Path] = ()
) -> Experiment:
    """The experiment that `config` describes. Keys that it lacks come from the workflow's own files.

    `locate` finds a file of the workflow by its path in the repository. Snakemake has read `files` into `config`. They
    are read again here, because Snakemake accepts files that this refuses.
    """
    for path in files:
        read_configuration(Path(path))
    shipped = shipped_configuration(locate)
    config.update(fill_in(config, shipped))
    config["sources"] = config["sources"] or shipped["sources"]
    experiment = parse_experiment(config, defaults=shipped)
    if not experiment.partial:  # `partial` reads no image
        check_folders(experiment.datasets, experiment.results)
    return experiment


def parse_experiment(config: dict[str, Any], defaults: dict[str, Any] | None = None) -> Experiment:
    """The experiment that a complete configuration describes; `defaults` is config.yaml without the user's files.

    Raises MaskrdError with one line for each wrong key: its name, its value and the remedy.
    """
    experiment = Experiment.read("config", nulls_read(config))
    datasets = complete_datasets(experiment.datasets, experiment.results)
    experiment = experiment.with_datasets(datasets, find_stand_ins(datasets))
    check(experiment, nulls_read(defaults or config))
    return experiment


def shipped_configuration(locate: Callable[[str], Path]) -> dict[str, Any]:
    """config.yaml over the catalogue, as the repository has them; `locate` as in `build_experiment`."""
    shipped = read_configuration(locate(str(DEFAULT)))
    for path in CATALOGUE:
        shipped = fill_in(shipped, read_configuration(locate(path)))
    shipped["sources"] = str(locate(SOURCES))
    return shipped


def fill_in(config: dict[str, Any], lower: dict[str, Any]) -> dict[str, Any]:
    """`config`, and at every depth the keys of `lower` that it lacks."""
    filled = dict(config)
    for key, value in lower.items():
        if key not in filled:
            filled[key] = value
        elif isinstance(filled[key], dict) and isinstance(value, dict):
            filled[key] = fill_in(filled[key], value)
    return filled


def read_configuration(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping.

    Raises MaskrdError for a file that is missing or isn't YAML, for a key that is there twice (YAML would keep the
    last one without a word), and for aliases that turn a few lines into more values than fit into memory.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if root is not None:
            _check_nodes(path, root)
        content = None if root is None else loader.construct_document(root)
    except FileNotFoundError:
        raise MaskrdError(f"{path}: no such file. Correct the path.") from None
    except IsADirectoryError:
        raise MaskrdError(f"{path}: a folder. Name the YAML file in it.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise MaskrdError(f"{path}: can't be read as YAML. Correct it: {error}") from None
    if not isinstance(content, dict):
        raise MaskrdError(f"{path}: not a mapping. Write `key: value` lines, as in config.yaml.")
    return content


def _check_nodes(path: Path, root: yaml.Node) -> None:
    if _expanded_size(root, {}) > LARGEST:
        raise MaskrdError(f"{path}: its aliases stand for more than {LARGEST:,} values. Use fewer aliases.")
    waiting = [root]
    while waiting:
        node = waiting.pop()
        waiting += _children(node)
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:
                raise MaskrdError(f"{path}: {name!r} is in lines {lines[name]} and {line}. Remove one of the two.")
            lines[name] = line


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values there are once every alias is written out."""
    if id(node) not in known:
        known[id(node)] = LARGEST + 1  # for a node that contains itself
        known[id(node)] = 1 + sum(_expanded_size(child, known) for child in _children(node))
    return known[id(node)]
