"""The experiment for people's commands: configuration files merged as Snakemake merges them."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from maskrd.errors import MaskrdError
from maskrd.experiment import Experiment

DEFAULT = Path("config.yaml")


def load_experiment(files: Sequence[Path] = ()) -> Experiment:
    """config.yaml of the current folder, with `files` merged over it in their order.

    Raises MaskrdError for a file that is missing or no mapping in YAML, and for what `Experiment.load` refuses.
    """
    from snakemake.utils import update_config

    merged: dict = {}
    for path in (DEFAULT, *files):
        update_config(merged, _read(path))
    return Experiment.load(merged, defaults=_read(DEFAULT))


def _read(path: Path) -> dict:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = "Run the command at the top of the repository." if path == DEFAULT else "Correct the path."
        raise MaskrdError(f"{path}: there is no such file. {remedy}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MaskrdError(f"{path}: not readable as YAML ({error}).") from None
    if not isinstance(content, dict):
        raise MaskrdError(f"{path}: not a mapping. It should hold keys such as those of config.yaml.")
    return content
