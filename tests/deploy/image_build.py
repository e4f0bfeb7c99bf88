"""Builds deploy/Dockerfile with buildah: no engine, no registry, a base from Debian's packages.

All of buildah's storage is in one folder that goes with the test. Needs root, buildah, debootstrap.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".pytest_cache" / "image"
RELEASE = "bookworm"
"""Of Debian; that of the Dockerfile's own base."""
PACKAGES = ("python3-venv", "ca-certificates", "openssl")
"""What the Dockerfile asks of its base, and the webhook's Job."""
TIMEOUT_S = 900


def call(*command: str | Path, **more: Any) -> str:
    """Run a command. Returns what it prints; raises RuntimeError with the end of what it said."""
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **more
    )
    if result.returncode:
        said = (result.stdout + result.stderr)[-4000:]
        raise RuntimeError(f"{command[0]} ended with {result.returncode}:\n{said}")
    return result.stdout


def base() -> Path:
    """A root file system as a tar, made once and kept."""
    path = KEPT / f"{RELEASE}.tar"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        folder = KEPT / "unpacked"
        shutil.rmtree(folder, ignore_errors=True)
        include = f"--include={','.join(PACKAGES)}"
        call("debootstrap", "--variant=minbase", include, RELEASE, folder)
        left_out = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "dev")
        unfinished = path.with_suffix(".unfinished")
        excluded = [f"--exclude=./{name}/*" for name in left_out]
        call("tar", f"--directory={folder}", *excluded, "--create", f"--file={unfinished}", ".")
        shutil.rmtree(folder)
        unfinished.rename(path)
    return path


@dataclass(frozen=True, kw_only=True)
class PipConfiguration:
    """This machine's, so that pip finds in the build what it finds outside."""

    text: str
    """As a file."""
    paths: tuple[Path, ...]
    """Files and folders of this machine that it names."""

    @classmethod
    def current(cls) -> PipConfiguration:
        """As `pip config list` says; environment variables count."""
        listed = call(sys.executable, "-m", "pip", "config", "list")
        options = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", listed, re.M))
        lines = [f"{name} = {_indented(value)}" for name, value in options.items()]
        words = {word for value in options.values() for word in re.split(r"\s+|\\n", value)}
        paths = tuple(sorted({p for p in map(_place, words) if p is not None and p.exists()}))
        return cls(text="\n".join(["[global]", *lines, ""]), paths=paths)


def _place(word: str) -> Path | None:
    """The file or folder that a word of pip's configuration names; of an index what it is in, as
    its links lead to its neighbours."""
    if word.startswith("file:///"):
        return Path(word.removeprefix("file://").rstrip("/")).parent
    return Path(word) if word.startswith("/") else None


def _indented(value: str) -> str:
    return "\n    ".join(value.replace("\\n", "\n").split("\n"))


@dataclass(frozen=True, kw_only=True)
class Buildah:
    """The program, with storage of its own in a folder."""

    folder: Path

    def __call__(self, *arguments: str | Path) -> str:
        places = ("--root", self.folder / "storage", "--runroot", self.folder / "run")
        isolation = {"BUILDAH_ISOLATION": "chroot"}
        return call("buildah", *places, *arguments, env=os.environ | isolation).strip()

    def import_base(self) -> str:
        """Name of an image that holds the base."""
        container = self("from", "scratch")
        self("add", "--quiet", container, base(), "/")
        self("commit", "--quiet", "--rm", container, "base")
        return "localhost/base"

    def build(self) -> dict[str, Any]:
        """Build the image `memplan`. Returns its configuration (OCI)."""
        pip = PipConfiguration.current()
        configuration = self.folder / "pip.conf"
        configuration.write_text(pip.text)
        mounts = {configuration: "/etc/pip.conf"} | {path: str(path) for path in pip.paths}
        self(
            "build",
            *(f"--volume={source}:{target}:ro" for source, target in mounts.items()),
            f"--build-arg=BASE={self.import_base()}",
            f"--file={ROOT / 'deploy' / 'Dockerfile'}",
            "--tag=memplan",
            ROOT,
        )
        described = json.loads(self("inspect", "--type=image", "memplan"))
        return described["OCIv1"]["config"]

    def mount(self) -> Path:
        """The root file system of a container of the image."""
        return Path(self("mount", self("from", "--pull-never", "memplan")))

    def remove(self) -> None:
        """Remove containers, images and the folder."""
        self("rm", "--all")
        self("rmi", "--all", "--force")
        shutil.rmtree(self.folder)
