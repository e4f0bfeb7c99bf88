"""The corpus as it lies in files: one JSON object a line, one file for each GPU type.

    for line in lines.read_lines(Path("bench/corpus")):
        line.name, line.job, line.measured.peak_reserved_bytes

`README.md` says what each field is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memplan.plain import from_dict, to_dict
from memplan.types import TrainingJob
from memplan_server.measure.measurement import Measurement

__all__ = ["Line", "read_lines"]

_OWN = ("name", "family", "job", "gpu_type", "error")


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One job of the matrix on one GPU."""

    name: str
    """Unique in the matrix: `resnet50-fp32-sgd-b32`."""
    family: str
    """The kind of model, among `matrix.FAMILIES`."""
    job: TrainingJob
    """Normalised; with its micro-batch size."""
    gpu_type: str | None
    """Name in the GPU catalog; None for a GPU that is not in it, or a dry run on the CPU."""
    measured: Measurement | None
    """None when the run failed otherwise than by running out of memory."""
    error: str = ""
    """Why it failed; empty when it did not."""

    def to_json(self) -> str:
        """The line, without its end."""
        own: dict[str, Any] = {
            "name": self.name,
            "family": self.family,
            "job": to_dict(self.job, defaults=False),
            "gpu_type": self.gpu_type,
            "error": self.error,
        }
        return json.dumps(own | ({} if self.measured is None else self.measured.to_dict()))

    @classmethod
    def from_json(cls, text: str) -> Line:
        """What `to_json` gave."""
        data: Mapping[str, Any] = json.loads(text)
        measured = {key: value for key, value in data.items() if key not in _OWN}
        return cls(
            name=data["name"],
            family=data["family"],
            job=from_dict(TrainingJob, data["job"]),
            gpu_type=data["gpu_type"],
            measured=Measurement.from_dict(measured) if measured else None,
            error=data["error"],
        )


def read_lines(folder: Path) -> Iterator[Line]:
    """Every line of the `*.jsonl` files of a folder, in order; a last line cut short is left out.

    Failed runs are among them: their `measured` is None.
    """
    for path in sorted(folder.glob("*.jsonl")):
        text = path.read_text()
        complete = text[: text.rfind("\n") + 1]
        yield from (Line.from_json(line) for line in complete.splitlines() if line.strip())
