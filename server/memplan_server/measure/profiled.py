"""What the process that measures a job gives back: plain data, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.types import MemoryPoint, PhasePeak
from memplan_server.measure.measurement import Measurement

__all__ = ["Profiled"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Profiled:
    """One measured run. On the CPU, peaks are those of the replay."""

    measurement: Measurement
    micro_batch_size: int
    """That was run: on the CPU it may be smaller than the job's."""
    warmup_step_count: int
    step_count: int
    """Steps that were timed."""
    memory_limit_bytes: int
    """What the job might take, the context included; 0: without limit."""
    phases: tuple[PhasePeak, ...] = ()
    curve: tuple[MemoryPoint, ...] = ()
    notes: tuple[str, ...] = ()
    """In sentences."""
