"""A job's convolutions with what our model, cuDNN's heuristics and a GPU say of their workspaces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memplan.types import AllocatorSettings, GpuType
from memplan_server.allocator import replay
from memplan_server.gpus.libraries import workspaces
from memplan_server.timeline import Convolution, Timeline
from workspaces.heuristics import Choice

__all__ = ["Call", "Compared", "compare", "peak_reserved_bytes"]

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
    """By `gpus/convolutions.py`."""
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


def compare(
    timeline: Timeline,
    batch_size: int,
    gpu_type: GpuType,
    choices: Callable[[Convolution, int], tuple[Choice, ...]],
    measured: Callable[[Convolution, int], int | None],
) -> list[Compared]:
    """Each different call of a step, those that differ most first."""
    model = workspaces(gpu_type)
    rows = []
    for (name, samples), count in Counter(_calls(timeline, batch_size).values()).items():
        convolution = timeline.convolutions[int(name.removeprefix(_LIBRARY))]
        each, fixed = model.of(name, timeline.convolutions)
        rows.append(
            Compared(
                call=Call(convolution, samples),
                count=count,
                ours=each * samples + fixed,
                choices=choices(convolution, samples),
                measured=measured(convolution, samples),
            )
        )
    return sorted(rows, key=lambda row: (-abs(row.difference), -row.ours))


def _calls(timeline: Timeline, batch_size: int) -> dict[int, tuple[str, int]]:
    """Storages of the second step, which is like all later ones: name and samples of the call."""
    samples = timeline.sizes(batch_size)
    in_step = {int(s) for s in timeline.events[timeline.step == 1] if s >= 0}
    return {
        storage: (name, int(samples[storage]))
        for storage, name in timeline.workspaces.items()
        if name.startswith(_LIBRARY) and storage in in_step
    }


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
    for storage, name in timeline.workspaces.items():
        if name.startswith(_LIBRARY):
            convolution = timeline.convolutions[int(name.removeprefix(_LIBRARY))]
            call = Call(convolution, int(samples[storage]))
            wanted[storage] = sizes.get(call, wanted[storage])
    events: Sequence[int] = timeline.events.tolist()
    emptied = timeline.cache_emptied
    return replay(events, wanted, settings, cache_emptied=emptied).peak_reserved_bytes
