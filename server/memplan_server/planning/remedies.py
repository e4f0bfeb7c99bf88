"""What would make a job fit: each remedy is planned before it is named.

Smaller micro-batches, half precision and larger GPUs first; where none of a smaller micro-batch and
half precision helps, ways to keep less on each GPU, which are simulations of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from memplan.types import (
    DataParallel,
    DataParallelStrategy,
    GpuType,
    Precision,
    Remedy,
    TrainingJob,
)
from memplan_server.errors import InvalidJob
from memplan_server.planning.accumulation import plan_accumulation
from memplan_server.planning.probe import Probe, Shared
from memplan_server.planning.targets import Target

__all__ = ["Wanted", "remedies"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is planned besides the job itself."""

    global_batch_size: int
    data_parallel_size: int
    headroom_fraction: float
    catalog: Sequence[GpuType]
    """GPU types that may be named."""
    patient: Callable[[], bool]
    """Whether there is time for simulations that an answer can do without."""


def remedies(probe: Probe, target: Target, wanted: Wanted) -> tuple[Remedy, ...]:
    """For a job that does not fit for sure; the easiest first."""
    found = [*_accumulate(probe, target, wanted), *_lower_precision(probe, target)]
    if not found:
        found += _keep_less(probe, target, wanted)
    return (*found, *_larger_gpu(probe, target, wanted.catalog))


def _accumulate(probe: Probe, target: Target, wanted: Wanted) -> Iterator[Remedy]:
    plan = plan_accumulation(
        probe.timelines,
        probe.job,
        target,
        global_batch_size=wanted.global_batch_size,
        data_parallel_size=wanted.data_parallel_size,
        headroom_fraction=wanted.headroom_fraction,
        confidence=probe.confidence,
        learned=probe.learned,
    )
    if plan.feasible:
        micro, steps = plan.micro_batch_size, plan.accumulation_steps
        yield Remedy(
            description=f"fits with micro-batch {micro} x {steps} steps",
            micro_batch_size=micro,
            accumulation_steps=steps,
        )


def _lower_precision(probe: Probe, target: Target) -> Iterator[Remedy]:
    if probe.job.precision not in (Precision.FP32, Precision.TF32):
        return
    lower = replace(probe.job, precision=Precision.AMP_BF16)
    if replace(probe, job=lower, shared=Shared()).surely_fits(target):
        yield Remedy(
            description=f"fits with {Precision.AMP_BF16.value}", precision=Precision.AMP_BF16
        )


def _keep_less(probe: Probe, target: Target, wanted: Wanted) -> Iterator[Remedy]:
    """The first way with which the job fits, if only with a smaller micro-batch."""
    size = probe.job.micro_batch_size
    for way in _ways_to_keep_less(probe, target, wanted.data_parallel_size):
        if not wanted.patient():
            return
        other = replace(probe, job=_changed(probe.job, way), shared=Shared())
        try:
            safe = other.largest_safe(
                target.capacity_bytes, wanted.headroom_fraction, min(size, target.most_samples)
            )
        except InvalidJob:  # the model's library has no checkpointing, for instance
            continue
        if safe == size:
            yield way
        elif safe:
            said = f"{way.description}, micro-batch {safe}"
            yield replace(way, description=said, micro_batch_size=safe)
        if safe:
            return


def _changed(job: TrainingJob, way: Remedy) -> TrainingJob:
    if way.activation_checkpointing:
        job = replace(job, activation_checkpointing=True)
    return job if way.data_parallel is None else replace(job, data_parallel=way.data_parallel)


def _ways_to_keep_less(probe: Probe, target: Target, ranks: int) -> Iterator[Remedy]:
    """Those that leave parameters, gradients and optimizer states less room than there is."""
    job, sample = probe.job, probe.sample
    if job.model.catalog is None:
        return
    state = sample.parameter_bytes + sample.gradient_bytes + sample.optimizer_state_bytes
    checkpointed = Remedy(
        description="fits with activation checkpointing", activation_checkpointing=True
    )
    if not job.activation_checkpointing and state < target.capacity_bytes:
        yield checkpointed
    is_ddp = job.data_parallel.strategy is DataParallelStrategy.DDP
    if is_ddp and ranks > 1 and state < ranks * target.capacity_bytes:
        fsdp = DataParallel(
            strategy=DataParallelStrategy.FSDP, shard_count=ranks, reshard_after_forward=True
        )
        sharded = f"fits with fsdp over the {ranks} ranks"
        yield Remedy(description=sharded, data_parallel=fsdp)
        if not job.activation_checkpointing:
            both = f"{sharded} and activation checkpointing"
            yield replace(checkpointed, description=both, data_parallel=fsdp)


def _larger_gpu(probe: Probe, target: Target, catalog: Sequence[GpuType]) -> Iterator[Remedy]:
    """The smallest GPU type on which the job fits as it is; whole GPUs before MIG profiles."""
    larger = [g for g in catalog if g.usable_bytes > target.capacity_bytes]
    for gpu_type in sorted(larger, key=lambda g: (bool(g.mig_parent), g.usable_bytes, g.name)):
        whole = Target(replace(target.gpu, gpu_type=gpu_type.name, free_bytes=None), gpu_type)
        if replace(probe, gpu_type=gpu_type).surely_fits(whole):
            yield Remedy(description=f"fits on {gpu_type.name}", gpu_type=gpu_type.name)
            return
