"""The documentation says what is so."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import readme_example

import memplan
from memplan import jobfile
from memplan.cli.commands import cli
from memplan.endpoint import VARIABLES
from memplan.slurm.config import Config
from memplan_server.measure.command import compare_command as comparing
from memplan_server.metrics import Metrics
from memplan_server.settings import Settings
from memplan_server.tenancy.command import parser as token_parser
from memplan_server.tenancy.tenants import LIMITS, Tenants
from memplan_server.validation import check

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
LINKING = [*PAGES, *ROOT.glob("deploy/**/*.md"), *ROOT.glob("bench/**/*.md")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a language; "" are those that name none."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.M | re.S)
    return [code for named, code in fences if named == language]


def commands() -> Iterator[str]:
    """Every command line of a code block without a language."""
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.replace("\\\n", " ").splitlines():
                command = re.split(r" >>? ", line.partition(" # ")[0])[0].strip()
                if command.split(" ")[0] in ("memplan", "memplan-server", "make"):
                    yield command


def table(text: str, heading: str) -> dict[str, tuple[str, ...]]:
    """Rows of the first table below a heading, by their first cell."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    cells = [tuple(cell.strip().strip("`") for cell in row) for row in rows[2:]]
    return {first: rest for first, *rest in cells}  # type: ignore[misc]


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_commands_parse(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
        assert {a for a in arguments if "=" not in a} <= set(targets)
    elif arguments[:1] == ["compare"]:
        comparing.make_context("compare", arguments[1:]).close()
    elif arguments[:1] == ["token"]:
        token_parser().parse_args(arguments[1:])
    elif program == "memplan-server":
        Settings.parse(arguments, {})
    else:
        parse(arguments)


def parse(arguments: list[str]) -> None:
    """Parse a command of the CLI without running it."""
    with cli.make_context("memplan", arguments[:1]) as context:
        command = cli.commands[arguments[0]]
        command.make_context(arguments[0], arguments[1:], parent=context)


@pytest.mark.slow
def test_the_plan_in_the_readme_is_what_the_command_prints() -> None:
    _, plan = readme_example.shown()
    assert plan == readme_example.current(), "to update: python tests/readme_example.py"


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), target


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_is_right(page: Path) -> None:
    for block in blocks(page, "python"):
        tree = ast.parse(block)
        if not block.startswith("import memplan"):
            continue
        # All that needs no server is run; names on the rest are looked up.
        alone = [node for node in tree.body if not isinstance(node, ast.With)]
        exec(compile(ast.Module(alone, []), page.name, "exec"), {})
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "memplan":
                assert hasattr(memplan, node.attr)
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "client":
                assert hasattr(memplan.Client, node.attr)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_jobs_are_jobs(page: Path) -> None:
    for block in blocks(page, "yaml"):
        if re.search("^(apiVersion|scrape_configs):", block, flags=re.M):
            continue  # tests/deploy has these
        request = jobfile.parse(block, source=page.name)
        check(request)


def test_every_field_of_a_job_is_documented() -> None:
    text = (ROOT / "docs" / "job-file.md").read_text()
    page = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    words = set(re.findall(r"[\w-]+", " ".join(re.findall(r"`([^`]+)`", page))))
    assert set(field_names(memplan.PlanJobRequest)) - {"job"} <= words


def field_names(cls: type, seen: frozenset[type] = frozenset()) -> Iterator[str]:
    """Names of the fields of a message and of those within it, and the words of its enums."""
    if issubclass(cls, StrEnum):
        yield from (str(member) for member in cls if member.name != "UNSPECIFIED")
    elif is_dataclass(cls) and cls not in seen and cls is not memplan.Graph:  # nobody writes one
        for name, hint in get_type_hints(cls).items():
            yield name
            for part in (hint, *get_args(hint)):
                if isinstance(part, type):
                    yield from field_names(part, seen | {cls})


def test_every_setting_of_the_server_is_documented() -> None:
    rows = table((ROOT / "docs" / "server.md").read_text(), "Settings")
    names = Settings.__dataclass_fields__
    assert list(rows) == [f"--{name.replace('_', '-')}" for name in names]
    assert [row[0] for row in rows.values()] == [f"MEMPLAN_{name.upper()}" for name in names]


def test_tenants_are_tenants(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "docs" / "server.md", "toml")
    (tmp_path / "tenants.toml").write_text(block)
    tenant = Tenants(tmp_path / "tenants.toml").named("team-a")
    assert tenant is not None
    assert set(LIMITS) <= {name for name in tenant.__slots__ if getattr(tenant, name) is not None}


def test_every_setting_of_a_connection_is_documented() -> None:
    rows = table((ROOT / "docs" / "server.md").read_text(), "TLS")
    assert {name: row[1].strip("`") for name, row in rows.items()} == VARIABLES
    options = {parameter.name: parameter for parameter in cli.commands["gpus"].params}
    helper = Config.__dataclass_fields__
    for name, (option, variable, setting, _) in rows.items():
        assert name in inspect.signature(memplan.Client).parameters
        found = options[option.removeprefix("--").replace("-", "_")]
        assert found.envvar == variable
        assert setting in helper


def test_every_metric_of_the_server_is_documented() -> None:
    rows = table((ROOT / "docs" / "server.md").read_text(), "Metrics")
    suffixes = {"counter": "_total", "info": "_info"}
    found = {m.name + suffixes.get(m.type, "") for m in Metrics().registry.collect()}
    assert set(rows) == found


def test_every_dependency_is_justified() -> None:
    extras = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    wanted = {
        re.split(r"[^\w-]", requirement)[0]: extra
        for extra, requirements in extras.items()
        for requirement in requirements
    }
    rows = table(CONTRIBUTING, "Dependencies")
    assert {package: row[0] for package, row in rows.items()} == wanted
    assert all(row[1] for row in rows.values())


def test_how_tos_are_short() -> None:
    text = CONTRIBUTING.partition("<!-- how-to: begin -->")[2].partition("<!-- how-to: end -->")[0]
    how_tos = text.split("## How to add ")[1:]
    names = [how_to.splitlines()[0] for how_to in how_tos]
    assert names == ["a model catalog", "a GPU", "an optimizer", "a metric"]
    for how_to in how_tos:
        assert len([line for line in how_to.splitlines()[1:] if line.strip()]) < 10


def test_files_that_the_how_tos_name_exist() -> None:
    folders = ("", "server/memplan_server/")
    for path in re.findall(r"`([\w./]+/[\w./]*\.?\w*)`", CONTRIBUTING):
        if "NAME" not in path and path.rstrip("/").count("/"):
            assert any((ROOT / folder / path).exists() for folder in folders), path


def test_the_changelog_has_this_version() -> None:
    assert f"\n## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_names_a_place_on_one_machine() -> None:
    places = re.compile("|".join(("/work" + "/", "/root" + "/", "/home" + r"/\w")))
    folders = ("client", "server", "tests", "bench", "deploy", "docs", "proto", ".ci")
    files = [p for f in folders for p in (ROOT / f).rglob("*") if p.is_file()]
    # In a worktree .git is a file.
    files += [p for p in ROOT.iterdir() if p.is_file() and p.name != ".git"]
    text = {p: p.read_text(errors="replace") for p in files if "__pycache__" not in p.parts}
    assert not [str(p.relative_to(ROOT)) for p, content in text.items() if places.search(content)]
