"""bench/coverage.py finds the models of every catalog."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "coverage.py"


@pytest.mark.slow
def test_models_are_counted_by_library(tmp_path: Path) -> None:
    page = tmp_path / "models.md"
    words = "--torchvision --timm 3 --transformers 3 --diffusers --only SD3 --markdown"
    done = subprocess.run(
        [sys.executable, SCRIPT, *words.split(), page], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "diffusers: 1 of 1 (100.0 %)" in done.stdout
    assert "| diffusers |" in page.read_text()
