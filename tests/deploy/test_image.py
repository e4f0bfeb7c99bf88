"""The Dockerfile: lint, what it copies, and who it runs as."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def hadolint(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / "hadolint"
    return subprocess.run(
        [program, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
    )


def test_hadolint_has_nothing_to_say() -> None:
    result = hadolint(str(DOCKERFILE))
    assert (result.returncode, result.stdout) == (0, "")


def test_hadolint_is_awake() -> None:
    assert "DL3006" in hadolint("-", text="FROM debian\n").stdout


def test_the_last_stage_does_not_run_as_root() -> None:
    last = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.M)[-1]
    users = re.findall(r"^USER (\d+):(\d+)$", last, flags=re.M)
    assert users
    assert "0" not in users[-1]
    assert last.index("USER ") < last.index("ENTRYPOINT ")


def test_what_it_copies_is_let_into_the_build_context() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), flags=re.M)
    sources = {source for line in copied for source in line.split()}
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert sources == let_in
    assert all((ROOT / source).exists() for source in sources)
