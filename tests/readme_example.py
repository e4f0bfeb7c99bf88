"""The plan that README.md shows: `python tests/readme_example.py` writes it there again."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
EXAMPLE = re.compile(r"```\n(memplan plan .*?)```\n\n```text\n(.*?)```\n", flags=re.S)
LAST_PART = "\nMost activations"
ENVIRONMENT = {"COLUMNS": "80", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}


def shown() -> tuple[str, str]:
    """The command and the plan as README.md has them."""
    match = EXAMPLE.search(README.read_text())
    assert match is not None
    return match[1], match[2]


def current() -> str:
    """What the command prints now, up to the parts that depend on the machine."""
    _, *arguments = shlex.split(shown()[0].replace("\\\n", " "))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MEMPLAN_")}
    program = Path(sysconfig.get_path("scripts")) / "memplan"
    with tempfile.TemporaryDirectory() as cache:
        environment |= ENVIRONMENT | {"XDG_CACHE_HOME": cache}
        result = subprocess.run(
            [program, *arguments], env=environment, capture_output=True, check=True
        )
    plan = result.stdout.decode().partition(LAST_PART)[0]
    return re.sub(r" +$", "", plan, flags=re.M)


def main() -> None:
    """Put the current plan into README.md."""
    README.write_text(README.read_text().replace(shown()[1], current()))


if __name__ == "__main__":
    main()
