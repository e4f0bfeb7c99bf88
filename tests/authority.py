"""Certificates for tests, made by openssl."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(folder: Path, *arguments: str) -> None:
    """Run it in a folder; skips the test where it is not installed."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


class Authority:
    """Signs certificates; `ca.pem` in its folder is its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.certificate = folder / "ca.pem"
        own = ("-keyout", "ca.key", "-out", "ca.pem", "-subj", f"/CN={folder.name}")
        openssl(folder, "req", "-x509", *_KEY, *own)

    def issue(self, folder: Path, name: str = "localhost") -> None:
        """A new `cert.pem` and `key.pem` in a folder, for `name`, localhost and 127.0.0.1.

        Each takes the place of the one there at once, but not both together.
        """
        made = self.folder / "made"
        made.mkdir(exist_ok=True)
        openssl(made, "req", *_KEY, "-keyout", "key.pem", "-out", "csr", "-subj", f"/CN={name}")
        (made / "san").write_text(f"subjectAltName=DNS:{name},DNS:localhost,IP:127.0.0.1")
        signing = ("-CA", "../ca.pem", "-CAkey", "../ca.key", "-CAcreateserial", "-extfile", "san")
        openssl(made, "x509", "-req", "-in", "csr", *signing, "-out", "cert.pem")
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("key.pem", "cert.pem"):
            os.replace(made / file, folder / file)
