"""The requests that docs/schedulers.md shows: `python tests/schedulers_example.py` renews them."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from pathlib import Path

from click.testing import CliRunner

from memplan.cli.commands import cli

PAGE = Path(__file__).parents[1] / "docs" / "schedulers.md"
EXAMPLE = re.compile(
    r"```\n(memplan plan -f job\.yaml [^\n]*)\n```\n\n```text\n(.*?)```\n", flags=re.S
)
JOB = re.compile(r"in `job\.yaml`:\n\n```yaml\n(.*?)```\n", flags=re.S)


def shown() -> dict[str, str]:
    """The answers on the page by the command that gives each."""
    return dict(EXAMPLE.findall(PAGE.read_text()))


def current(server: str) -> dict[str, str]:
    """What the commands print now, asking a server; "" starts one."""
    found = JOB.search(PAGE.read_text())
    assert found is not None
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "job.yaml")
        job.write_text(found[1])
        return {command: _printed(command, job, server) for command in shown()}


def _printed(command: str, job: Path, server: str) -> str:
    arguments = [str(job) if word == "job.yaml" else word for word in shlex.split(command)[1:]]
    asked = ["--server", server] if server else []
    result = CliRunner().invoke(cli, [*arguments, *asked])
    assert result.exit_code == 0, result.output
    return result.output


def main() -> None:
    """Put the current answers into the page."""
    answers = current(os.environ.get("MEMPLAN_SERVER", ""))

    def with_answer(match: re.Match[str]) -> str:
        return f"```\n{match[1]}\n```\n\n```text\n{answers[match[1]]}```\n"

    PAGE.write_text(EXAMPLE.sub(with_answer, PAGE.read_text()))


if __name__ == "__main__":
    main()
