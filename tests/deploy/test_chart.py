"""The Helm chart as files: in step with the server, the version, the rules and its own values."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import chart_files
import jsonschema
import pytest
import yaml

from memplan.cli.commands import cli
from memplan_server.settings import Settings, SettingsError

ROOT = chart_files.ROOT
CHART = chart_files.CHART
SCHEMA = json.loads(chart_files.SCHEMA.read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SETTINGS = SCHEMA["$defs"]["settings"]["properties"]
CANDIDATES = (0, 1, 2, 0.5, -1, 16, 86_400, 86_401, 10_001, 10_000_001, True, False)
CANDIDATES += ("8GiB", "512 MiB", "0GiB", "8Gi", "8GB", "1048576", "")
CANDIDATES += ("debug", "JSON", "text", "/etc/file")
LISTS = (["gpu-0:50051"], ["a:1", "dns:///b:1"], ["a:1,b:1"], [""], [" "])


def test_what_is_written_from_other_files_is_up_to_date() -> None:
    assert chart_files.SCHEMA.read_text() == chart_files.schema(), "run: make chart"
    assert chart_files.README.read_text() == chart_files.readme(), "run: make chart"


def test_every_value_is_described() -> None:
    described = dict(chart_files.described((CHART / "values.yaml").read_text()))
    assert set(leaves(VALUES, described)) == set(described)
    assert all(meaning.endswith(".") for meaning in described.values())


def leaves(values: dict[str, Any], described: dict[str, str], prefix: str = "") -> list[str]:
    """Paths that users set: those that are described, and what is not a mapping."""
    found = []
    for name, value in values.items():
        path = prefix + name
        if path in described or not isinstance(value, dict) or not value:
            found.append(path)
        else:
            found += leaves(value, described, f"{path}.")
    return found


def test_the_version_is_that_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version


def test_rules_and_dashboard_are_those_for_everybody() -> None:
    for name in ("prometheus/rules.yaml", "grafana/memplan.json"):
        link = CHART / "files" / Path(name).name
        assert link.resolve() == ROOT / "deploy" / name
        assert link.is_file()


def test_the_defaults_keep_to_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(VALUES)


def test_each_setting_is_a_value() -> None:
    names = {spec.name for spec in fields(Settings)}
    assert set(chart_files.OWNED) <= names
    assert set(SETTINGS) == {chart_files.camel(name) for name in names - set(chart_files.OWNED)}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_schema_takes_what_the_server_takes(name: str) -> None:
    """Exactly that, but for text, of which the server takes what YAML writes otherwise."""
    (variable,) = {s.name for s in fields(Settings) if chart_files.camel(s.name) == name}
    validator = jsonschema.Draft202012Validator(SETTINGS[name])
    taken = 0
    for value in (*CANDIDATES, *LISTS):
        valid = validator.is_valid(value)
        taken += valid
        if valid or not isinstance(value, str | list):
            assert valid == understood(variable, value) or wrong_type(validator, value), value
    assert taken


NEEDED = {"profiler_token_file": {"MEMPLAN_PROFILER": "gpu-0:50051"}}
"""What settings need that say nothing by themselves."""


def understood(name: str, value: Any) -> bool:
    """Whether the server starts with a value as the chart writes it."""
    text = ",".join(value) if isinstance(value, list) else str(value)
    if isinstance(value, bool):
        text = text.lower()
    try:
        Settings.parse([], NEEDED.get(name, {}) | {f"MEMPLAN_{name.upper()}": text})
    except SettingsError:
        return False
    return bool(text)


def wrong_type(validator: jsonschema.Draft202012Validator, value: Any) -> bool:
    """Whether the schema refuses a type, such as 1 for true, that the server would read."""
    found = {error.validator for error in validator.iter_errors(value)}
    return bool(found & {"type", "enum", "anyOf"})


MADE_BY_THE_CHART = {"LISTEN", "CERT", "KEY", "METRICS_PORT"}


@pytest.mark.parametrize("name", ["webhook", "kueue"])
def test_each_setting_of_the_commands_is_a_value(name: str) -> None:
    prefix = f"MEMPLAN_{name.upper()}_"
    variables = [str(option.envvar) for option in cli.commands[name].params]
    own = {v.removeprefix(prefix) for v in variables if v.startswith(prefix)} - MADE_BY_THE_CHART
    values = SCHEMA["properties"][name]["properties"]["settings"]["properties"]
    assert set(values) == {chart_files.camel(variable.lower()) for variable in own}
    if "patience" in values:
        (option,) = [o for o in cli.commands[name].params if o.name == "patience"]
        limits = values["patience"]
        assert (limits["minimum"], limits["maximum"]) == (option.type.min, option.type.max)


def test_profilers_never_share_their_gpu() -> None:
    resource = SCHEMA["properties"]["profiler"]["properties"]["gpuResource"]
    validator = jsonschema.Draft202012Validator(resource)
    assert validator.is_valid("nvidia.com/gpu")
    assert validator.is_valid("nvidia.com/mig-1g.10gb")
    assert not validator.is_valid("nvidia.com/gpu.shared")


def test_commands_name_values_that_exist() -> None:
    pages = [CHART / "README.md", ROOT / "docs" / "server.md"]
    given = {
        path
        for page in pages
        for path in re.findall(r"--set(?:-string)? ([\w.]+)=", page.read_text())
    }
    assert given
    for path in given:
        schema: Any = SCHEMA
        for part in path.split("."):
            if "$ref" in schema:
                schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
            schema = schema["properties"][part]
