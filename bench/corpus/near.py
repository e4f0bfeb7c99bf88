"""The largest batch size that the estimate calls safe. Runs in a child process."""

from __future__ import annotations

from dataclasses import replace

from memplan.types import GpuTarget, GpuType, TrainingJob
from memplan_server.gpus.libraries import capability, kernel_class
from memplan_server.planning import Target, recommend_batch_sizes
from memplan_server.simulate import worker
from memplan_server.timeline import Timeline

__all__ = ["batch_size"]


class _Timelines:
    """One job's timeline on one kind of GPU, made once."""

    def __init__(self) -> None:
        self._made: Timeline | None = None

    def get(self, job: TrainingJob, gpu_type: GpuType) -> Timeline:
        """As `planning.Timelines`."""
        made = self._made
        if made is None or not (made.affine or job.micro_batch_size in made.traced_batch_sizes):
            made = Timeline.from_bytes(worker.trace(job, kernel_class(capability(gpu_type))))
            self._made = made
        return made


def batch_size(job: TrainingJob, gpu_type: GpuType) -> int:
    """With no headroom besides the upper bound's; at least 1."""
    worker.initialize()
    target = Target(GpuTarget(gpu_type=gpu_type.name), gpu_type)
    first = replace(job, micro_batch_size=1)
    (found,) = recommend_batch_sizes(
        _Timelines(), first, [target], headroom_fraction=0.0, multiple_of=1
    )
    return max(1, found.recommended_batch_size)
