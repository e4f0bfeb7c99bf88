"""What the number of data-parallel ranks says of the job that each of them runs."""

from __future__ import annotations

from dataclasses import replace

from memplan.types import DataParallelStrategy, TrainingJob

__all__ = ["in_ranks"]


def in_ranks(job: TrainingJob, data_parallel_size: int) -> TrainingJob:
    """The job as each of so many ranks runs it: within DDP, unless it says how."""
    given = job.data_parallel
    if data_parallel_size <= 1:
        return job
    if given.strategy is DataParallelStrategy.UNSPECIFIED:
        given = replace(given, strategy=DataParallelStrategy.DDP)
    if given.strategy is DataParallelStrategy.FSDP and not given.shard_count:
        given = replace(given, shard_count=data_parallel_size)
    return replace(job, data_parallel=given)
