"""The JSON schema for editors: current, fulfilled by what we ship, and stricter than YAML."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from maskrd.config.load import read_configuration
from maskrd.config.schema import configuration_schema, write_schema
from maskrd.errors import MaskrdError
from tests.conftest import ROOT

FILES = ["config.yaml", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "workflow/config").rglob("*.yaml")))]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return configuration_schema()


def test_the_schema_is_current(schema: dict[str, Any]) -> None:
    stored = json.loads((ROOT / "workflow/schema.json").read_text(encoding="utf-8"))
    assert stored == schema, "Run: maskrd schema --output workflow/schema.json"


@pytest.mark.parametrize("name", FILES)
def test_shipped_files_fulfil_it(schema: dict[str, Any], name: str) -> None:
    jsonschema.validate(read_configuration(ROOT / name), schema)
    first = (ROOT / name).read_text(encoding="utf-8").splitlines()[0]
    address = first.removeprefix("# yaml-language-server: $schema=")
    assert ((ROOT / name).parent / address).resolve() == ROOT / "workflow/schema.json"


@pytest.mark.parametrize(
    "changed",
    [
        {"trian": {}},
        {"train": {"epoch": 3}},
        {"train": {"method": "unknown"}},
        {"variants": {"mine": {"epochs": 0}}},
        {"tables": {"mine": {"rows": "columns"}}},
    ],
)
def test_slips_are_marked(schema: dict[str, Any], changed: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, schema)


def test_a_method_from_a_file_may_have_any_setting(schema: dict[str, Any]) -> None:
    jsonschema.validate({"variants": {"mine": {"method": "mine.py:Mine", "depth": 3}}}, schema)


def test_keys_are_described_by_the_comments_of_config_yaml(schema: dict[str, Any]) -> None:
    described = schema["properties"]["train"]["properties"]
    assert "Section 3.7" in described["fmm"]["description"]
    assert "mean" in schema["properties"]["evaluation"]["properties"]["score"]["description"]
    assert "description" in schema["properties"]["seeds"]


def test_no_file_of_another_kind_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("mine")
    with pytest.raises(MaskrdError, match=r"README\.md: .* must end in \.json"):
        write_schema(page)
    assert page.read_text() == "mine"
