"""Whether a job fits on each GPU as it is described, and what would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from memplan.types import GpuType, Placement, TrainingJob, Verdict
from memplan_server.planning import uncertainty
from memplan_server.planning.learned import NOTHING_LEARNED, Learned
from memplan_server.planning.probe import Probe, Shared
from memplan_server.planning.remedies import Wanted, remedies
from memplan_server.planning.targets import Target, Timelines
from memplan_server.planning.text import gib
from memplan_server.planning.uncertainty import CONFIDENCE, Bounds, held_confidence

__all__ = ["place"]

_A_FEW_STEPS = "a few measured steps on such a GPU would tell"
_ALL_RANKS = "a few steps of all its ranks would tell"


def place(
    timelines: Timelines,
    job: TrainingJob,
    targets: Sequence[Target],
    *,
    global_batch_size: int = 0,
    data_parallel_size: int = 1,
    headroom_fraction: float = 0.05,
    confidence: float = CONFIDENCE,
    catalog: Sequence[GpuType] = (),
    learned: Learned = NOTHING_LEARNED,
    patient: Callable[[], bool] = lambda: True,
) -> tuple[Placement, ...]:
    """One placement for each target. Remedies may name GPU types of `catalog`.

    `patient`: whether there is time for simulations that an answer can do without.
    """
    wanted = Wanted(
        global_batch_size=global_batch_size or job.micro_batch_size * data_parallel_size,
        data_parallel_size=data_parallel_size,
        headroom_fraction=headroom_fraction,
        catalog=catalog,
        patient=patient,
    )
    shared = Shared()
    placements = []
    for target in targets:
        probe = Probe(timelines, job, target.gpu_type, shared, confidence, learned)
        placement = _place(probe, target)
        if placement.verdict is not Verdict.FITS:
            placement = replace(placement, remedies=remedies(probe, target, wanted))
        placements.append(placement)
    return tuple(placements)


def _place(probe: Probe, target: Target) -> Placement:
    batch_size, capacity = probe.job.micro_batch_size, target.capacity_bytes
    used = probe.device_used_bytes(batch_size)
    limits = probe.bounds(batch_size)
    verdict = _verdict(probe, limits, target)
    timeline = probe.timeline(batch_size)
    why = uncertainty.reason(timeline, target.gpu_type, probe.learned)
    settles = _ALL_RANKS if "fully_sharded" in timeline.traits else _A_FEW_STEPS
    return Placement(
        gpu=target.gpu,
        verdict=verdict,
        capacity_bytes=capacity,
        device_used_bytes=used,
        upper_bound_bytes=limits.upper_bytes,
        spare_bytes=max(0, capacity - limits.upper_bytes),
        missing_bytes=max(0, limits.upper_bytes - capacity),
        reason=_reason(verdict, used, limits, capacity, why, settles),
        confidence=held_confidence(probe.confidence),
    )


def _verdict(probe: Probe, limits: Bounds, target: Target) -> Verdict:
    batch_size, capacity = probe.job.micro_batch_size, target.capacity_bytes
    if probe.surely_fits(target):
        return Verdict.FITS
    if limits.lower_bytes > capacity and not probe.fits(batch_size, capacity):
        return Verdict.DOES_NOT_FIT
    return Verdict.UNCERTAIN


def _reason(
    verdict: Verdict, used: int, limits: Bounds, capacity: int, why: str, settles: str
) -> str:
    if verdict is Verdict.FITS:
        return f"Takes {gib(used)}, at most {gib(limits.upper_bytes)}, of {gib(capacity)}."
    if verdict is Verdict.DOES_NOT_FIT:
        return f"Takes {gib(used)}, at least {gib(limits.lower_bytes)}; {gib(capacity)} are there."
    return (
        f"Takes {gib(used)}, between {gib(limits.lower_bytes)} and {gib(limits.upper_bytes)} "
        f"({why}), and {gib(capacity)} are there: {settles}."
    )
