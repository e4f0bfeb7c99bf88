"""Micro-batch size and accumulation steps for a global batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from memplan.types import AccumulationPlan, Remedy, TrainingJob
from memplan_server.allocator import Replay
from memplan_server.planning.learned import NOTHING_LEARNED, Learned
from memplan_server.planning.probe import Probe
from memplan_server.planning.targets import MAX_BATCH_SIZE, Target, Timelines, run
from memplan_server.planning.text import gib
from memplan_server.planning.uncertainty import CONFIDENCE, held_confidence

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
    confidence: float = CONFIDENCE,
    learned: Learned = NOTHING_LEARNED,
) -> AccumulationPlan:
    """The plan for this GPU. `global_batch_size` is a multiple of `data_parallel_size`.

    `job.micro_batch_size`, unless 0, is the largest that may be used.
    """
    assert global_batch_size % data_parallel_size == 0
    samples = global_batch_size // data_parallel_size
    plan = AccumulationPlan(
        gpu=target.gpu,
        global_batch_size=global_batch_size,
        data_parallel_size=data_parallel_size,
        confidence=held_confidence(confidence),
    )
    limit = min(samples, job.micro_batch_size or MAX_BATCH_SIZE, target.most_samples)
    once, several = (
        Probe(
            timelines,
            _with_steps(job, steps),
            target.gpu_type,
            confidence=confidence,
            learned=learned,
        )
        for steps in (1, 2)
    )
    if limit == samples:
        fitting = once.largest_safe(target.capacity_bytes, headroom_fraction, samples)
        if fitting == samples:
            return _in_one_step(once, target, plan, samples)
    usable = several.largest_safe(target.capacity_bytes, headroom_fraction, limit)
    if not usable:
        return _infeasible(several, target, plan)
    return _in_several(once, several, target, plan, usable, asked=job.micro_batch_size)


def _with_steps(job: TrainingJob, steps: int) -> TrainingJob:
    return replace(job, loop=replace(job.loop, accumulation_steps=steps))


def _in_one_step(
    probe: Probe, target: Target, plan: AccumulationPlan, samples: int
) -> AccumulationPlan:
    return replace(
        plan,
        feasible=True,
        micro_batch_size=samples,
        accumulation_steps=1,
        last_micro_batch_size=samples,
        max_micro_batch_size=probe.largest_that_fits(target.capacity_bytes, target.most_samples),
        device_used_bytes=probe.device_used_bytes(samples),
        reason=f"All {samples:,} samples of a rank fit at once: nothing to accumulate.",
    )


def _in_several(
    once: Probe, several: Probe, target: Target, plan: AccumulationPlan, usable: int, *, asked: int
) -> AccumulationPlan:
    chosen, result = _that_fits(
        several, target, plan.global_batch_size // plan.data_parallel_size, usable
    )
    used = result.peak_reserved_bytes + several.context_bytes
    return replace(
        plan,
        feasible=True,
        micro_batch_size=chosen.micro_batch_size,
        accumulation_steps=chosen.steps,
        last_micro_batch_size=chosen.last_micro_batch_size,
        max_micro_batch_size=several.largest_that_fits(target.capacity_bytes, target.most_samples),
        device_used_bytes=used,
        reason=_reason(chosen, usable, "may be used" if usable == asked else "fit safely"),
        advice=_advice(once, chosen, used),
    )


def _that_fits(probe: Probe, target: Target, samples: int, usable: int) -> tuple[Split, Replay]:
    """The split and its replay with the GPU's capacity.

    A smaller last micro-batch leaves other gaps between blocks than a full one, so what was found
    for full ones is replayed as it is planned, and made smaller in the rare case that it must be.
    """
    while True:
        chosen = split(samples, usable)
        micro = chosen.micro_batch_size
        result = run(
            probe.timeline(micro),
            micro,
            probe.job.allocator,
            # with two micro-batches in the timeline, the second is the last only of two
            last_batch_size=chosen.last_micro_batch_size if chosen.steps == 2 else None,
            room_bytes=target.capacity_bytes - probe.context_bytes,
        )
        if result.out_of_memory_event is None or micro == 1:
            return chosen, result
        usable = micro - 1


def _reason(chosen: Split, usable: int, bound: str) -> str:
    micro, steps, samples = chosen.micro_batch_size, chosen.steps, chosen.samples
    if chosen.last_micro_batch_size == micro:
        equal = f"{steps} equal micro-batches of {micro} make {samples:,} samples"
        return f"{equal}; up to {usable} {bound}."
    return (
        f"{samples:,} samples do not divide into few equal micro-batches (up to {usable} {bound}): "
        f"{steps - 1} of {micro} and a last one of {chosen.last_micro_batch_size}."
    )


def _advice(once: Probe, chosen: Split, used: int) -> tuple[str, ...]:
    micro, last = chosen.micro_batch_size, chosen.last_micro_batch_size
    advice = [f"Divide the loss by {chosen.steps} before backward()."]
    if last != micro:
        advice = [
            f"Weight each micro-batch's mean loss by its share of the samples: {micro}/"
            f"{chosen.samples}, the last one {last}/{chosen.samples}."
        ]
    if "batch_norm" in once.timeline(micro).traits:
        smaller = f" (the last one of {last})" if last != micro else ""
        advice.append(
            f"BatchNorm computes its statistics over micro-batches of {micro}{smaller}, not over "
            "the global batch."
        )
        if last == 1 and micro > 1:
            advice.append("BatchNorm may refuse the last micro-batch of 1: drop that sample.")
    without = once.device_used_bytes(micro)
    advice.append(
        f"Gradients stay alive during forward: {gib(used)} with accumulation, {gib(without)} "
        "without, at the same micro-batch size."
    )
    return tuple(advice)


def _infeasible(probe: Probe, target: Target, plan: AccumulationPlan) -> AccumulationPlan:
    needed, capacity = probe.device_used_bytes(1), target.capacity_bytes
    state = probe.sample
    fixed = state.parameter_bytes + state.gradient_bytes + state.optimizer_state_bytes
    return replace(
        plan,
        max_micro_batch_size=probe.largest_that_fits(capacity, target.most_samples),
        device_used_bytes=needed,
        reason=(
            f"Even micro-batch 1 takes {gib(needed)}, and {gib(capacity)} are "
            f"there; parameters, gradients and optimizer states alone take {gib(fixed)}."
        ),
        remedies=(Remedy(description="Use a larger GPU, lower precision or a smaller model."),),
    )
