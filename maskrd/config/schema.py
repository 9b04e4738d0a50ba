"""The JSON schema of a configuration, for editors: made from the settings' classes and the comments of config.yaml."""

import re
from pathlib import Path
from typing import Any

from maskrd.config.experiment import Experiment
from maskrd.config.load import DEFAULT, REPOSITORY
from maskrd.config.methods import METHODS, FileSettings, setting_names
from maskrd.config.settings import Evaluation, StrictData
from maskrd.errors import MaskrdError
from maskrd.files import write_json

LINE = re.compile(r"( *)(\w+):(?: [^#]*)?(?:# (.*))?")
NOISE = ("title", "required", "default")  # a file says only what it changes, so no key is required


def configuration_schema() -> dict[str, Any]:
    """A schema for a whole configuration, and for any file that is merged over one."""
    schema = _tidy(Experiment.model_json_schema())
    settings = _training_properties()
    evaluation = _properties(Evaluation)
    schema["properties"]["train"] = _mapping(settings)
    schema["properties"]["evaluation"] = _mapping(evaluation)
    own_code = {"properties": {"method": {"type": "string", "pattern": r"\.py"}}, "required": ["method"]}
    backbone = {"backbone": {"type": "string", "description": "The teacher of this variant alone."}}
    variant = {"anyOf": [_mapping({**settings, **evaluation, **backbone}), own_code]}
    schema["properties"]["variants"] = {"type": "object", "additionalProperties": variant}
    schema["properties"]["sources"] = {"type": ["string", "null"]}
    for (section, key), text in _comments(REPOSITORY / DEFAULT).items():
        place = schema["properties"][section]["properties"] if section else schema["properties"]
        if key in place:
            place[key]["description"] = text
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Configuration of maskrd", **schema}


def write_schema(path: Path) -> None:
    """Raises MaskrdError if the name doesn't end in .json, so that no file of another kind is replaced."""
    if path.suffix != ".json":
        raise MaskrdError(f"{path}: the name of the schema to write must end in .json.")
    write_json(path, configuration_schema())


def _training_properties() -> dict[str, Any]:
    """The settings of all methods. Where methods have different values for one key, it may have any of them."""
    found: dict[str, list[Any]] = {}
    for settings in (*METHODS.values(), FileSettings):
        properties = _properties(settings)
        for key in setting_names(settings):
            if properties[key] not in found.setdefault(key, []):
                found[key].append(properties[key])
    merged = {key: values[0] if len(values) == 1 else {"anyOf": values} for key, values in found.items()}
    merged["method"] = {"anyOf": [{"enum": list(METHODS)}, {"type": "string", "pattern": r"\.py"}]}
    return merged


def _properties(section: type[StrictData]) -> dict[str, Any]:
    return _tidy(section.model_json_schema())["properties"]


def _mapping(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _tidy(schema: Any) -> Any:
    """The schema without the keys in `NOISE`. The names below `properties` are configuration keys, so all stay."""
    if isinstance(schema, list):
        return [_tidy(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in NOISE}
    return {
        key: {name: _tidy(entry) for name, entry in value.items()} if key == "properties" else _tidy(value)
        for key, value in kept.items()
    }


def _comments(path: Path) -> dict[tuple[str, str], str]:
    """(section or "", key) -> the comment after it."""
    found, section = {}, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        match = LINE.fullmatch(line)
        if not match:
            continue
        indent, key, text = match.groups()
        if not indent:
            section = key
        if text and (not indent or (len(indent) == 2 and section in ("train", "evaluation"))):
            found[section if indent else "", key] = text
    return found
