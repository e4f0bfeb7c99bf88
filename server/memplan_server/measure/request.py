"""What is asked of a measured run. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from memplan.types import TrainingJob

__all__ = ["Request"]


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
