"""Workspaces of a job's convolutions: by our model, by cuDNN's heuristics and on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memplan.types import AllocatorSettings, GpuType
from memplan_server.allocator import replay
from memplan_server.gpus.libraries import Workspaces, workspaces
from memplan_server.timeline import Convolution, Timeline
from workspaces.heuristics import Choice

__all__ = ["Call", "Compared", "calls", "compare", "ours_bytes", "peak_reserved_bytes"]

_LIBRARY = "cudnn/"


@dataclass(frozen=True, slots=True)
class Call:
    """What cuDNN is asked to compute."""

    convolution: Convolution
    samples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """One call of a training step. Bytes."""

    call: Call
    count: int
    """How often it is made in a step."""
    ours: int
    """By `gpus/convolutions`."""
    choices: tuple[Choice, ...] = ()
    """What cuDNN proposes, the first first; empty where it was not asked."""
    measured: int | None = None
    """Taken on a GPU; None where it was not run, or had no room."""

    @property
    def first(self) -> int | None:
        """What PyTorch takes without cudnn.benchmark, if it is as cuDNN says."""
        return self.choices[0].workspace_bytes if self.choices else None

    @property
    def least(self) -> int | None:
        """Of the proposals."""
        return min((c.workspace_bytes for c in self.choices), default=None)

    @property
    def most(self) -> int | None:
        """Of the proposals."""
        return max((c.workspace_bytes for c in self.choices), default=None)

    @property
    def difference(self) -> int:
        """How far ours is from what is known best: measured, or else cuDNN's first choice."""
        known = self.measured if self.measured is not None else self.first
        return 0 if known is None else known - self.ours

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self.call.convolution),
            "samples": self.call.samples,
            "count": self.count,
            "ours_bytes": self.ours,
            "choices": [
                {"mode": c.mode.name.lower(), "engine": c.engine, "bytes": c.workspace_bytes}
                for c in self.choices
            ],
            "measured_bytes": self.measured,
        }


def calls(timeline: Timeline, batch_size: int) -> Counter[Call]:
    """The different calls of the second step, which is like all later ones, and how often each."""
    samples = timeline.sizes(batch_size)
    in_step = {int(s) for s in timeline.events[timeline.step == 1] if s >= 0}
    return Counter(
        Call(timeline.convolutions[index], int(samples[storage]))
        for storage, index in _convolutions(timeline)
        if storage in in_step
    )


def compare(
    found: Mapping[Call, int],
    gpu_type: GpuType,
    choices: Callable[[Convolution, int], tuple[Choice, ...]],
    measured: Mapping[Call, int | None],
) -> list[Compared]:
    """A row for each of the `calls`, those that differ most first."""
    model = workspaces(gpu_type)
    rows = []
    for call, count in found.items():
        rows.append(
            Compared(
                call=call,
                count=count,
                ours=ours_bytes(call, model),
                choices=choices(call.convolution, call.samples),
                measured=measured.get(call),
            )
        )
    return sorted(rows, key=lambda row: (-abs(row.difference), -row.ours))


def ours_bytes(call: Call, model: Workspaces) -> int:
    """What our rules for a GPU say that a call takes."""
    sizes = model.of(f"{_LIBRARY}0", [call.convolution])
    size = [s for s in sizes if s.samples <= call.samples][-1]
    return size.each * call.samples + size.fixed


def peak_reserved_bytes(
    timeline: Timeline,
    batch_size: int,
    gpu_type: GpuType,
    sizes: Mapping[Call, int],
    settings: AllocatorSettings,
) -> int:
    """Of the replay on an empty, boundless GPU with these workspaces; others are our model's."""
    wanted = timeline.with_workspaces(workspaces(gpu_type)).sizes(batch_size)
    samples = timeline.sizes(batch_size)
    for storage, index in _convolutions(timeline):
        call = Call(timeline.convolutions[index], int(samples[storage]))
        wanted[storage] = sizes.get(call, wanted[storage])
    events: Sequence[int] = timeline.events.tolist()
    emptied = timeline.cache_emptied
    return replay(events, wanted, settings, cache_emptied=emptied).peak_reserved_bytes


def _convolutions(timeline: Timeline) -> Iterator[tuple[int, int]]:
    """Storages that are cuDNN's workspaces, and which convolution's."""
    for storage, name in timeline.workspaces.items():
        if name.startswith(_LIBRARY):
            yield storage, int(name.removeprefix(_LIBRARY))
