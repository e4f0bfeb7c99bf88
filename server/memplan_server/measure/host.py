"""A real run on the CPU, watched through its storages."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from memplan.types import AllocatorSettings, PhasePeak
from memplan_server.measure.cpu import HostRecorder
from memplan_server.measure.measurement import Gpu
from memplan_server.measure.watch import Seen, Watch

__all__ = ["HostMeter"]


class HostMeter:
    """The CPU. It has neither a caching allocator nor a driver, so only storages are counted."""

    memory_limit_bytes = 0

    def __init__(self, settings: AllocatorSettings, memory_limit_bytes: int = 0) -> None:
        """Allocator settings are CUDA's and change nothing here; a limit is for the replay."""
        self.device = torch.device("cpu")
        self._recorder = HostRecorder()

    def watch(self, *, history: bool, operators: bool) -> Watch:
        """The recorder is always there: without it nothing would be counted."""
        return Watch(
            observer=self._recorder,
            mode=self._recorder,
            seen=lambda: Seen(events=self._recorder.events()),
        )

    def start(self) -> None:
        """There is nothing to start."""

    def place(self, module: nn.Module) -> None:
        """The model is there."""
        self._recorder.adopt_model(module)

    def synchronize(self) -> None:
        """Operators are done when they return."""

    def note_context(self) -> None:
        """There is no context."""

    def peaks(self) -> tuple[int, int]:
        """Peak allocated bytes so far; nothing is reserved."""
        return self._recorder.peak_allocated_bytes, 0

    def phase_peaks(self) -> tuple[PhasePeak, ...]:
        """A replay of the events tells them."""
        return ()

    def readings(self) -> dict[str, Any]:
        """The fields of a `Measurement` that are known."""
        return {
            "gpu": Gpu(name="cpu"),
            "peak_allocated_bytes": self._recorder.peak_allocated_bytes,
        }
