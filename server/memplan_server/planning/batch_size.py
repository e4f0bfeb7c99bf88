"""The largest and the recommended micro-batch size for each GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from memplan.types import (
    BatchSizeFormula,
    BatchSizePoint,
    BatchSizeRecommendation,
    GpuType,
    TrainingJob,
)
from memplan_server.planning.estimate import alive_after
from memplan_server.planning.learned import NOTHING_LEARNED, Learned
from memplan_server.planning.probe import Probe, Shared
from memplan_server.planning.targets import MAX_BATCH_SIZE, Target, Timelines
from memplan_server.planning.text import gib
from memplan_server.planning.uncertainty import CONFIDENCE, held_confidence
from memplan_server.timeline import Category, Phase, Timeline

__all__ = ["TENSOR_CORE_MULTIPLE", "recommend_batch_sizes"]

TENSOR_CORE_MULTIPLE = 8
"""Batch sizes that are multiples of it keep tensor cores full in half precision."""

_CURVE_POINTS = 12


def recommend_batch_sizes(
    timelines: Timelines,
    job: TrainingJob,
    targets: Sequence[Target],
    *,
    headroom_fraction: float = 0.05,
    multiple_of: int = 0,
    max_batch_size: int = 0,
    confidence: float = CONFIDENCE,
    learned: Learned = NOTHING_LEARNED,
) -> tuple[BatchSizeRecommendation, ...]:
    """One recommendation for each target, in that order."""
    shared = Shared()
    limit = max_batch_size or MAX_BATCH_SIZE
    return tuple(
        _recommend(
            Probe(timelines, job, target.gpu_type, shared, confidence, learned),
            target,
            headroom_fraction,
            multiple_of,
            limit,
        )
        for target in targets
    )


def _recommend(
    probe: Probe, target: Target, headroom_fraction: float, multiple_of: int, limit: int
) -> BatchSizeRecommendation:
    capacity = target.capacity_bytes
    maximum = probe.largest_that_fits(capacity, min(limit, target.most_samples))
    multiple = multiple_of or (TENSOR_CORE_MULTIPLE if maximum >= TENSOR_CORE_MULTIPLE else 1)
    recommended = probe.largest_safe(capacity, headroom_fraction, maximum, multiple)
    if not recommended:  # not even one multiple: then the largest there is
        smaller = min(maximum, multiple)
        multiple, recommended = 1, probe.largest_safe(capacity, headroom_fraction, smaller)
    return BatchSizeRecommendation(
        gpu=target.gpu,
        capacity_bytes=capacity,
        max_batch_size=maximum,
        max_device_used_bytes=_at_the_limit(probe, maximum, capacity),
        recommended_batch_size=recommended,
        recommended_device_used_bytes=probe.device_used_bytes(recommended) if recommended else 0,
        multiple_of=multiple,
        formula=_formula(probe.timeline(max(1, maximum)), target.gpu_type, capacity),
        curve=_curve(probe, maximum),
        reason=_reason(probe, maximum, recommended, capacity, headroom_fraction, limit),
        confidence=held_confidence(probe.confidence),
    )


def _at_the_limit(probe: Probe, maximum: int, capacity: int) -> int:
    """Near the limit the allocator gives cached segments back: never more than there is."""
    if not maximum:
        return 0
    return probe.limited(maximum, capacity).peak_reserved_bytes + probe.context_bytes


def _reason(
    probe: Probe, maximum: int, recommended: int, capacity: int, headroom: float, limit: int
) -> str:
    if not maximum:
        needed = gib(probe.device_used_bytes(1))
        return (
            f"Not even one sample fits: it takes {needed}, and {gib(capacity)} are there. "
            "Lower precision, a smaller model or a larger GPU would help."
        )
    if maximum == limit:
        return f"{maximum} fits and is the largest batch asked about."
    if maximum == probe.reach(limit):
        return f"{maximum} fits; larger ones are not tried, as they would take long to simulate."
    if not recommended:
        return (
            f"{maximum} is expected to fit, but nothing leaves {headroom:.0%} of {gib(capacity)} "
            "free and is sure to."
        )
    return (
        f"{maximum} is the largest that fits in {gib(capacity)}; "
        f"{recommended} leaves at least {headroom:.0%} free, and its upper bound fits."
    )


def _formula(timeline: Timeline, gpu_type: GpuType, capacity: int) -> BatchSizeFormula:
    """What adding up and dividing says. Activations are those alive after the forward pass."""
    forward = (timeline.phase == Phase.FORWARD) & (timeline.step == timeline.step.max())
    end = int(np.flatnonzero(forward)[-1])
    counted = np.isin(timeline.category, (Category.ACTIVATION, Category.INPUT))
    held = alive_after(timeline, end)[counted]
    per_sample = int((held * timeline.slope[counted]).sum())
    if not timeline.affine:
        per_sample = (
            int((held * timeline.intercept[counted]).sum()) // timeline.traced_batch_sizes[0]
        )
    fixed = (
        timeline.parameter_bytes
        + timeline.gradient_bytes
        + timeline.optimizer_state_bytes
        + timeline.buffer_bytes
        + gpu_type.context_bytes
    )
    fitting = max(0, capacity - fixed) // per_sample if per_sample else MAX_BATCH_SIZE
    return BatchSizeFormula(
        fixed_bytes=fixed,
        bytes_per_sample=per_sample,
        batch_size=min(fitting, MAX_BATCH_SIZE),
    )


def _curve(probe: Probe, maximum: int) -> tuple[BatchSizePoint, ...]:
    """Powers of two up to beyond the maximum: few enough to plot and to send."""
    if not probe.sample.affine:
        return (_point(probe, max(1, maximum)),)
    top = max(1, maximum).bit_length()
    powers = range(max(0, top - _CURVE_POINTS), top + 1)
    return tuple(_point(probe, 1 << n) for n in powers if 1 << n <= MAX_BATCH_SIZE)


def _point(probe: Probe, batch_size: int) -> BatchSizePoint:
    point = BatchSizePoint(
        batch_size=batch_size,
        peak_allocated_bytes=probe.allocated_bytes(batch_size),
        peak_reserved_bytes=probe.reserved_bytes(batch_size),
    )
    used = point.peak_reserved_bytes + probe.context_bytes
    return replace(point, device_used_bytes=used)
