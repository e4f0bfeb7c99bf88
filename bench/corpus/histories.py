"""Allocator histories of jobs of the matrix, recorded on a GPU: what a replay has to give.

    PYTHONPATH=client:server python bench/corpus/histories.py NAME... [--out bench/corpus/histories]

Each job of those names runs for three steps in a process of its own, undisturbed but for the
allocator's history, and makes a file NAME.json.gz. `recordings(folder)` reads them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from corpus.matrix import matrix
from memplan.plain import from_dict, to_dict
from memplan.types import TrainingJob
from memplan_server.measure.child import in_child
from memplan_server.measure.events import Events, Section
from memplan_server.measure.history import History
from memplan_server.measure.measurement import Measurement
from memplan_server.measure.request import Request
from memplan_server.timeline import Phase

__all__ = ["FOLDER", "Recording", "recordings"]

FOLDER = Path(__file__).parent / "histories"
STEPS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A job's run and everything that it allocated."""

    name: str
    """In the matrix."""
    job: TrainingJob
    measurement: Measurement
    history: History
    sections: tuple[Section, ...]

    def events(self, steps: int) -> Events:
        """The allocations and frees of so many training steps, from the beginning."""
        end = next((s.start for s in self.sections if s.step >= steps), len(self.history.events))
        events = self.history.events[:end]
        return Events(
            events=events,
            sizes=self.history.sizes[: 1 + max(events)],
            sections=[s for s in self.sections if s.step < steps],
        )

    def write(self, folder: Path) -> None:
        """A file named after the job; the same bytes whenever it is written."""
        data = {
            "name": self.name,
            "job": to_dict(self.job, defaults=False),
            "measurement": self.measurement.to_dict(),
            "history": asdict(self.history),
            "sections": [[s.start, int(s.phase), s.step] for s in self.sections],
        }
        with gzip.GzipFile(folder / f"{self.name}.json.gz", "wb", mtime=0) as file:
            file.write(json.dumps(data, separators=(",", ":")).encode())

    @classmethod
    def read(cls, path: Path) -> Recording:
        """What `write` wrote."""
        data: Mapping[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        history = dict(data["history"])
        history["segments"] = [(made, size) for made, size in history["segments"]]
        return cls(
            name=data["name"],
            job=from_dict(TrainingJob, data["job"]),
            measurement=Measurement.from_dict(data["measurement"]),
            history=History(**history),
            sections=tuple(Section(at, Phase(phase), step) for at, phase, step in data["sections"]),
        )


def recordings(folder: Path = FOLDER) -> Iterator[Recording]:
    """Those in a folder, by name."""
    yield from map(Recording.read, sorted(folder.glob("*.json.gz")))


def main(arguments: Sequence[str]) -> int:
    """Record; 0, or 2 for a name that the matrix does not have."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args(arguments)
    jobs = {entry.name: entry.job for entry in matrix()}
    for name in options.names:
        if name not in jobs:
            print(f"histories.py: the matrix has no {name}", file=sys.stderr)
            return 2
        request = Request(job=jobs[name], warmup_steps=0, steps=STEPS, history=True)
        outcome = in_child("memplan_server.measure.run:run", request)
        Recording(
            name=name,
            job=jobs[name],
            measurement=outcome.measurement,
            history=outcome.seen.history,
            sections=tuple(outcome.seen.events.sections),
        ).write(options.out)
        print(f"{name}: {len(outcome.seen.history.events):,} events", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
