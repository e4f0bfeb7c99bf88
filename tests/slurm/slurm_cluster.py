"""Commands in a Slurm cluster, and those of docs/slurm.md that make it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "slurm.md").read_text()


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command did."""

    code: int
    text: str
    seconds: float


@dataclass(kw_only=True)
class Cluster:
    """The namespaces that the cluster lives in, and the service beside them."""

    inside: int
    server: subprocess.Popen[bytes]
    outputs: dict[str, Result] = field(default_factory=dict)
    """What the blocks of the page printed, by their text."""

    def run(self, command: str, *, timeout: float = 120, **environment: str) -> Result:
        """Run a command line in the cluster."""
        enter = ["nsenter", "--target", str(self.inside), "--mount", "--pid"]
        start = time.monotonic()
        done = subprocess.run(
            [*enter, f"--wd={ROOT}", "bash", "-euo", "pipefail", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "PYTHONPATH": "", **environment},
        )
        return Result(code=done.returncode, text=done.stdout, seconds=time.monotonic() - start)


def blocks() -> list[str]:
    """The commands of the page, but those that install packages."""
    found = re.findall(r"^```bash\n(.*?)^```$", PAGE, flags=re.M | re.S)
    return [block for block in found if not block.startswith("apt-get")]


def service_arguments() -> list[str]:
    """How the page starts the service."""
    match = re.search(r"^memplan-server (.*)$", PAGE, flags=re.M)
    assert match is not None
    return shlex.split(match[1])
