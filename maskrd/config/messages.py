"""The messages about an invalid configuration: where, what is wrong, and what to write instead."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def nulls_read(value: Any) -> Any:
    """`value` with None for the text "null". Snakemake gives nested values of `--config` as text."""
    if isinstance(value, dict):
        return {key: nulls_read(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [nulls_read(entry) for entry in value]
    return None if value == "null" else value


def unknown_key(where: str, key: str, known: Iterable[str]) -> str:
    """One line that names the nearest of the `known` words, or all of them if none is near."""
    known = list(known)
    name, colon, value = key.partition(":")
    if colon and name in known:
        return f"{where}: unknown {key!r}. A space must follow the colon: {name}: {value}"
    return f"{where}: {unknown_word(key, known)}"


def unknown_word(word: str, known: Iterable[str]) -> str:
    """The same without the place, for errors that get it elsewhere."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
    return f"unknown {word!r}. {hint}"


def describe_wrong_keys(error: ValidationError, section: type[BaseModel], where: str) -> str:
    """One line for each wrong key of a configuration."""
    lines = []
    for item in error.errors():
        *parents, key = item["loc"] or ("",)
        parent = ".".join(str(part) for part in (where, *parents))
        if item["type"] == "extra_forbidden":
            lines.append(unknown_key(parent, str(key), _known_keys(section, parents)))
        elif item["type"] == "missing":
            lines.append(f"{parent}.{key}: missing. Give it a value; config.yaml has one.")
        elif item["type"] == "tuple_type":
            lines.append(f"{parent}.{key}: not a list (value: {item['input']!r}). Write [{item['input']}].")
        elif item["type"] == "dict_type":
            lines.append(f"{parent}.{key}: not a mapping (value: {item['input']!r}). Write {{key: value}}.")
        elif item["type"] == "too_short":
            if not item["input"]:  # pydantic also calls a list too short if its only entry is wrong
                lines.append(f"{parent}.{key}: an empty list. Write at least one entry.")
        else:
            problem = item["msg"].removeprefix("Value error, ")
            given = "" if isinstance(item["input"], dict) else f" (value: {item['input']!r})"  # a section is long
            lines.append(f"{parent}.{key}: {problem}{given}".replace(".: ", ": "))
    return "\n".join(lines)


def _known_keys(section: type[BaseModel], parents: Iterable[str | int]) -> list[str]:
    """The keys of the section that `parents` lead to."""
    sections = [section]
    for part in parents:
        annotations = [found.model_fields[part].annotation for found in sections if part in found.model_fields]
        # `part` may be a name in a mapping or a number in a list. Then the sections stay those of the key before.
        sections = [found for annotation in annotations for found in _sections_in(annotation)] or sections
    return list(dict.fromkeys(key for found in sections for key in found.model_fields))


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections_in(argument)
