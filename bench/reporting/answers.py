"""What the peers say of a job, asked once and kept from run to run.

    kept = Answers(Path("peers.jsonl"))     # or Answers(None), which keeps nothing
    kept.of(job, {8, 16})                   # {8: {"MemTracker": ...}, 16: {...}}, or None
    kept.keep(job, answers)                 # at once, so that a run cut short is no loss

An answer is kept under what the peers see of the job, the versions of the libraries and the peers'
own code. After a change in how the server builds models or runs loops, delete the file.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import peers
from memplan.plain import to_dict
from memplan.types import AllocatorSettings, OptimizerImplementation, TrainingJob
from memplan_server.models import BuiltModel
from memplan_server.timeline import Timeline
from peers import mem_tracker, rules

__all__ = ["LIBRARIES", "PEERS", "Answers", "BySize", "ask"]

PEERS = ("MemTracker", "textbook formula", "accelerate estimate-memory")
LIBRARIES = ("torch", "torchvision", "timm", "transformers")

BySize = Mapping[int, Mapping[str, int]]
"""Bytes by batch size and name of `PEERS`."""


def ask(job: TrainingJob, built: BuiltModel, timeline: Timeline, sizes: Collection[int]) -> BySize:
    """Each peer's answer; one that cannot execute the job gives none."""
    answers: dict[int, dict[str, int]] = {size: {} for size in sorted(sizes)}

    def note(name: str, answer: Callable[[], Mapping[int, int]]) -> None:
        try:
            given = answer()
        except Exception:  # whatever a model raises on another device than it was made for
            return
        for size, value in given.items():
            answers[size][name] = value

    def textbook() -> Mapping[int, int]:
        fixed = rules.model_state_bytes(timeline)
        slope = rules.activation_bytes_per_sample(job, built)
        return {size: fixed + slope * size for size in sizes}

    note(PEERS[0], lambda: mem_tracker.peaks_by_batch_size(job, built, sizes))
    note(PEERS[1], textbook)
    note(PEERS[2], lambda: dict.fromkeys(sizes, rules.accelerate_bytes(job, built)))
    return answers


class Answers:
    """A file with a line of JSON for each job; without a file nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, BySize] = {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            record = json.loads(line)
            self._known[record["key"]] = {int(n): a for n, a in record["answers"].items()}

    def of(self, job: TrainingJob, sizes: Collection[int]) -> BySize | None:
        """The answers at these batch sizes, if they were asked for all of them together."""
        known = self._known.get(_key(job, sizes))
        return None if known is None or set(known) != set(sizes) else known

    def keep(self, job: TrainingJob, answers: BySize) -> None:
        """Write them down."""
        if self._path is None:
            return
        key = _key(job, answers)
        self._known[key] = answers
        with self._path.open("a") as file:
            file.write(json.dumps({"key": key, "answers": answers}) + "\n")


def _key(job: TrainingJob, sizes: Collection[int]) -> str:
    """The sizes are part of it: MemTracker is executed at the smallest and the largest only.

    What peers do not see is not: on the CPU's kernels an optimizer takes its temporaries for one
    parameter at a time, far below the peak.
    """
    optimizer = replace(
        job.optimizer,
        implementation=OptimizerImplementation.SINGLE,
        nesterov=False,
        weight_decay=0.0,
    )
    seen = replace(
        job,
        micro_batch_size=0,
        allocator=AllocatorSettings(),
        cudnn_benchmark=False,
        optimizer=optimizer,
    )
    parts = [to_dict(seen, defaults=False), sorted(sizes), _versions()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _versions() -> str:
    libraries = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    code = [file.read_text() for file in sorted(Path(peers.__path__[0]).glob("*.py"))]
    return "\n".join((*libraries, *code))
