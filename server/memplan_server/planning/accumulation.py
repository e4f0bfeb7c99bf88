"""Micro-batch size and accumulation steps for a global batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from memplan.types import AccumulationPlan, Remedy, TrainingJob
from memplan_server.planning.probe import MAX_BATCH_SIZE, Probe
from memplan_server.planning.targets import Target, Timelines, run
from memplan_server.planning.text import gib

__all__ = ["Split", "plan_accumulation", "split"]

_MULTIPLE = 8
_EXTRA_STEPS = 1.25
"""Equal micro-batches are worth at most this factor in steps."""


@dataclass(frozen=True, slots=True)
class Split:
    """(steps - 1) * micro_batch_size + last_micro_batch_size samples, last <= micro."""

    micro_batch_size: int
    steps: int
    last_micro_batch_size: int

    @property
    def samples(self) -> int:
        """Samples of all micro-batches."""
        return (self.steps - 1) * self.micro_batch_size + self.last_micro_batch_size


def split(samples: int, limit: int) -> Split:
    """Split `samples` into micro-batches of at most `limit`.

    The fewest steps there can be; a few more when that makes all micro-batches equal; else
    micro-batches as equal as they get, a multiple of eight where that takes no further step.
    """
    assert samples >= 1
    assert limit >= 1
    fewest = -(-samples // limit)
    for steps in range(fewest, int(fewest * _EXTRA_STEPS) + 1):
        if samples % steps == 0:
            return Split(samples // steps, steps, samples // steps)
    micro = -(-samples // fewest)
    rounded = -(-micro // _MULTIPLE) * _MULTIPLE
    if rounded <= limit and -(-samples // rounded) == fewest:
        micro = rounded
    return Split(micro, fewest, samples - (fewest - 1) * micro)


def plan_accumulation(
    timelines: Timelines,
    job: TrainingJob,
    target: Target,
    *,
    global_batch_size: int,
    data_parallel_size: int = 1,
    headroom_fraction: float = 0.05,
) -> AccumulationPlan:
    """The plan for this GPU. `global_batch_size` is a multiple of `data_parallel_size`."""
    assert global_batch_size % data_parallel_size == 0
    samples = global_batch_size // data_parallel_size
    room = target.capacity_bytes - int(target.capacity_bytes * headroom_fraction)
    plan = AccumulationPlan(
        gpu=target.gpu,
        global_batch_size=global_batch_size,
        data_parallel_size=data_parallel_size,
    )
    asked = job.micro_batch_size or MAX_BATCH_SIZE
    once = _with_steps(job, 1)
    if (
        samples <= asked
        and Probe(timelines, once, target.gpu_type).device_used_bytes(samples) <= room
    ):
        return _in_one_step(timelines, once, target, plan, samples)
    return _in_several(timelines, _with_steps(job, 2), target, plan, min(samples, asked), room)


def _with_steps(job: TrainingJob, steps: int) -> TrainingJob:
    return replace(job, loop=replace(job.loop, accumulation_steps=steps))


def _in_one_step(
    timelines: Timelines, job: TrainingJob, target: Target, plan: AccumulationPlan, samples: int
) -> AccumulationPlan:
    probe = Probe(timelines, job, target.gpu_type)
    return replace(
        plan,
        feasible=True,
        micro_batch_size=samples,
        accumulation_steps=1,
        last_micro_batch_size=samples,
        max_micro_batch_size=probe.largest_that_fits(target.capacity_bytes),
        device_used_bytes=probe.device_used_bytes(samples),
        reason=f"All {samples} samples of a rank fit at once: nothing to accumulate.",
    )


def _in_several(
    timelines: Timelines,
    job: TrainingJob,
    target: Target,
    plan: AccumulationPlan,
    limit: int,
    room: int,
) -> AccumulationPlan:
    probe = Probe(timelines, job, target.gpu_type)
    samples = plan.global_batch_size // plan.data_parallel_size
    maximum = probe.largest_that_fits(target.capacity_bytes)
    usable = probe.largest_within(room, min(limit, maximum))
    if not usable:
        return _infeasible(probe, target, plan, maximum)
    chosen = split(samples, usable)
    used = _device_used(probe, target, chosen)
    return replace(
        plan,
        feasible=True,
        micro_batch_size=chosen.micro_batch_size,
        accumulation_steps=chosen.steps,
        last_micro_batch_size=chosen.last_micro_batch_size,
        max_micro_batch_size=maximum,
        device_used_bytes=used,
        reason=_reason(chosen, usable, samples),
        advice=_advice(timelines, job, target, chosen, used),
    )


def _device_used(probe: Probe, target: Target, chosen: Split) -> int:
    """With two micro-batches in the timeline, the second is the last only when there are two."""
    if chosen.steps != 2:
        return probe.device_used_bytes(chosen.micro_batch_size)
    done = run(
        probe.timeline(chosen.micro_batch_size),
        target.gpu_type,
        chosen.micro_batch_size,
        probe.job.allocator,
        last_batch_size=chosen.last_micro_batch_size,
    )
    return done.peak_reserved_bytes + target.gpu_type.context_bytes


def _reason(chosen: Split, usable: int, samples: int) -> str:
    micro, steps = chosen.micro_batch_size, chosen.steps
    if chosen.last_micro_batch_size == micro:
        return f"{steps} equal micro-batches of {micro} make {samples} samples; up to {usable} fit."
    return (
        f"{samples} samples do not divide into few equal micro-batches of at most {usable}: "
        f"{steps - 1} of {micro} and a last one of {chosen.last_micro_batch_size}."
    )


def _advice(
    timelines: Timelines, job: TrainingJob, target: Target, chosen: Split, used: int
) -> tuple[str, ...]:
    advice = [f"Divide the loss by {chosen.steps} before backward()."]
    if chosen.last_micro_batch_size != chosen.micro_batch_size:
        advice = [
            "Weight each micro-batch's mean loss by its share of the samples: "
            f"{chosen.micro_batch_size}/{chosen.samples}, the last one "
            f"{chosen.last_micro_batch_size}/{chosen.samples}."
        ]
    probe = Probe(timelines, _with_steps(job, 1), target.gpu_type)
    if "batch_norm" in probe.timeline(chosen.micro_batch_size).traits:
        advice.append(
            f"BatchNorm computes its statistics over micro-batches of {chosen.micro_batch_size} "
            f"(the last one of {chosen.last_micro_batch_size}), not over the global batch."
        )
    without = probe.device_used_bytes(chosen.micro_batch_size)
    advice.append(
        f"Gradients stay alive during forward: {gib(used)} with accumulation, {gib(without)} "
        "without, at the same micro-batch size."
    )
    return tuple(advice)


def _infeasible(
    probe: Probe, target: Target, plan: AccumulationPlan, maximum: int
) -> AccumulationPlan:
    needed, capacity = probe.device_used_bytes(1), target.capacity_bytes
    state = probe.timeline(1)
    fixed = state.parameter_bytes + state.gradient_bytes + state.optimizer_state_bytes
    return replace(
        plan,
        max_micro_batch_size=maximum,
        device_used_bytes=needed,
        reason=(
            f"Even micro-batch 1 takes {needed} bytes ({gib(needed)}) and {gib(capacity)} are "
            f"there; parameters, gradients and optimizer states alone take {gib(fixed)}."
        ),
        remedies=(Remedy(description="Use a larger GPU, lower precision or a smaller model."),),
    )
