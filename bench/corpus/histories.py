"""Allocator histories of jobs of the matrix, recorded on a GPU: what a replay has to give.

    PYTHONPATH=client:server python bench/corpus/histories.py NAME... [--out FOLDER]
    PYTHONPATH=client:server python bench/corpus/histories.py       # replays those of bench/corpus

Each job of those names runs for three steps in a process of its own, undisturbed but for the
allocator's history, and makes a file NAME.json.gz. `recordings(folder)` reads them. A replay says
how far reserved bytes are off with segments at the recorded addresses, each below and each above
the last.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from corpus.matrix import matrix
from memplan.plain import from_dict, to_dict
from memplan.types import TrainingJob
from memplan_server.measure.child import in_child
from memplan_server.measure.compare import NoCudaDevice, check_cuda
from memplan_server.measure.events import Events, Section
from memplan_server.measure.history import History, ReplayedHistory, replay_history
from memplan_server.measure.measurement import Measurement
from memplan_server.measure.request import Request
from memplan_server.timeline import Phase
from reporting.markdown import mib, table

__all__ = ["FOLDER", "Recording", "recordings"]

FOLDER = Path(__file__).parent / "histories"
STEPS = 3
_MIB = 1 << 20
_FAR = 1 << 42


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
    """Record or replay; 0, 2 for a name that the matrix does not have, 3 without a GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args(arguments)
    jobs = {entry.name: entry.job for entry in matrix()}
    unknown = [name for name in options.names if name not in jobs]
    if unknown:
        said = f"the matrix has no {unknown[0]}; bench/corpus/matrix.py lists what it has"
        print(f"histories.py: {said}", file=sys.stderr)
        return 2
    if not options.names:
        print(_replays(options.out))
        return 0
    try:
        check_cuda()
    except NoCudaDevice as error:
        print(f"histories.py: {error}", file=sys.stderr)
        return 3
    _record({name: jobs[name] for name in options.names}, options.out)
    return 0


def _replays(folder: Path) -> str:
    rows = []
    for recording in recordings(folder):
        history = recording.history
        rising = itertools.count(_FAR, _FAR)
        above = [next(rising) for _ in history.addresses]
        ways = (history, replace(history, addresses=()), replace(history, addresses=above))
        replays = [replay_history(way) for way in ways]
        rows.append((recording.name, mib(history.peak_reserved_bytes), *map(_difference, replays)))
    titles = ("history", "reserved MiB", "as recorded", "each below the last", "each above")
    return table(titles, rows)


def _difference(replayed: ReplayedHistory) -> str:
    if replayed.same:
        return "the same"
    off = replayed.replayed_peak_reserved_bytes - replayed.recorded_peak_reserved_bytes
    return f"{off / _MIB:+.0f} MiB, differs {replayed.differences:,} times"


def _record(jobs: Mapping[str, TrainingJob], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, job in jobs.items():
        request = Request(job=job, warmup_steps=0, steps=STEPS, history=True)
        outcome = in_child("memplan_server.measure.run:run", request)
        Recording(
            name=name,
            job=job,
            measurement=outcome.measurement,
            history=outcome.seen.history,
            sections=tuple(outcome.seen.events.sections),
        ).write(folder)
        print(f"{name}: {len(outcome.seen.history.events):,} events", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
