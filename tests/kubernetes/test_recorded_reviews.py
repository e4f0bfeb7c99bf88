"""The reviews of the folder are what a real API server asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from control_plane import ControlPlane
from record_reviews import record, recorded_by, settled
from reviewing import load

pytestmark = pytest.mark.integration


def test_reviews_are_as_they_are_recorded(plane: ControlPlane, tmp_path: Path) -> None:
    with recorded_by(plane, tmp_path) as recorder:
        found = record(plane, recorder)
    for name, review in found.items():
        assert settled(review) == settled(load(name)), name
