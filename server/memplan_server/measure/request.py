"""What is asked of a measured run. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from memplan.types import ProfileStage, TrainingJob

__all__ = ["Progress", "Report", "Request"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A job to run for real."""

    job: TrainingJob
    """Normalised."""
    device_type: str = "cuda"
    """`cuda`: its first device; or `cpu`."""
    warmup_steps: int = 2
    """Steps before those that are timed."""
    steps: int = 4
    """Steps that are timed."""
    micro_steps: int | None = None
    """Micro-batches a step; None: as the job says."""
    history: bool = False
    """Give every allocation and free back."""
    operators: bool = False
    """Also the operator of each: it disturbs a run on CUDA a little."""
    memory_limit_bytes: int = 0
    """What the job may take, the context included; 0: all that is free. On the CPU it is for the
    replay."""
    context_bytes: int = 0
    """What of that the context takes, for a run on the CPU, which has none."""
    host_memory_bytes: int = 0
    """What a run on the CPU may take; 0: what is available."""
    time_limit_s: float = 0.0
    """Measure fewer steps, on the CPU smaller batches, to be done within it; 0: no limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is."""

    stage: ProfileStage
    micro_batch_size: int
    step: int = 0
    """Steps done."""
    step_count: int = 0
    """Steps to do."""
    peak_allocated_bytes: int = 0
    peak_reserved_bytes: int = 0
    """0 on the CPU."""


Report = Callable[[Progress], None]
