"""The committed stubs are those of the proto files, and the proto files are clean."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RELEASED = ROOT / "proto/released.json"
PROTOS = sorted((ROOT / "proto").glob("memplan/v1/*.proto"))


def test_stubs_are_fresh(tmp_path: Path) -> None:
    assert version("grpcio-tools") == "1.76.0", "other versions generate other stubs"
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    names = [str(p.relative_to(ROOT / "proto")) for p in PROTOS]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", *out, *names]
    subprocess.run(command, check=True, cwd=ROOT)
    committed = {p.name: p.read_text() for p in (ROOT / "client/memplan/v1").glob("*_pb2*.py*")}
    generated = {p.name: p.read_text() for p in (tmp_path / "memplan/v1").iterdir()}
    assert committed.keys() == generated.keys()
    stale = [name for name in generated if generated[name] != committed[name]]
    assert not stale, "run `make proto`"


def buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("buf")
    if not program.exists():
        pytest.skip("buf is not installed: pip install buf-bin")
    command = [program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_buf_lint() -> None:
    result = buf("lint")
    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_released_is_broken() -> None:
    result = buf("breaking", "--against", str(RELEASED))
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_retyped_field_would_be_noticed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    job = tmp_path / "proto/memplan/v1/job.proto"
    job.write_text(job.read_text().replace("int64 micro_batch_size =", "int32 micro_batch_size ="))
    result = buf("breaking", str(tmp_path), "--against", str(RELEASED))
    assert result.returncode != 0
    assert "micro_batch_size" in result.stdout
