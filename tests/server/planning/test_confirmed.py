"""Plans held against measurements: what follows, for any of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timelines import MIB, Fixed, job, target

from memplan.types import (
    DataParallel,
    DataParallelStrategy,
    DeviceType,
    MeasuredProfile,
    PlanJobResponse,
    Verdict,
)
from memplan_server.gpus.libraries import COMMUNICATION_BYTES
from memplan_server.planning import (
    Evidence,
    Finding,
    Goal,
    estimate_memory,
    plan_job,
    restricted,
    to_measure,
    with_evidence,
)

TIMELINES = Fixed()
CARD = target(6 << 30)
GIB = 1 << 30


def measured(batch_size: int, used_bytes: int = 0, **fields: Any) -> MeasuredProfile:
    """On the card; out of memory where no bytes are given."""
    of_the_card: dict[str, Any] = {
        "device_type": DeviceType.CUDA,
        "gpu_type": CARD.gpu_type.name,
        "job": job(batch_size),
        "micro_batch_size": batch_size,
        "memory_limit_bytes": CARD.capacity_bytes,
        "device_used_bytes": used_bytes,
        "out_of_memory": not used_bytes,
    }
    return MeasuredProfile(**(of_the_card | fields))


def goal(batch_size: int, global_batch_size: int = 0) -> Goal:
    return Goal(job=job(batch_size), targets=[CARD], global_batch_size=global_batch_size)


def corrected(asked: Goal, profile: MeasuredProfile) -> tuple[Goal, PlanJobResponse]:
    smaller = restricted(TIMELINES, asked, profile)
    return smaller, with_evidence(plan_job(TIMELINES, smaller), smaller, [profile])


def finding(profile: MeasuredProfile) -> Finding:
    return Evidence.of(profile, CARD).finding


@given(st.integers(2, 400), st.integers(1, 400), st.sampled_from((0, 512, 4096)))
@settings(max_examples=40, deadline=None)
def test_nothing_is_planned_at_or_above_what_ran_out_of_memory(
    failed: int, batch_size: int, global_batch_size: int
) -> None:
    asked = goal(batch_size, global_batch_size)
    smaller, plan = corrected(asked, measured(failed))
    (batch,), (placement,) = plan.batch_sizes, plan.placements
    assert batch.recommended_batch_size <= batch.max_batch_size < failed
    if batch_size >= failed:
        assert placement.verdict is Verdict.DOES_NOT_FIT
        assert placement.missing_bytes > 0
        assert placement.spare_bytes == 0
    if plan.accumulation is not None:
        assert plan.accumulation.micro_batch_size < failed
        assert plan.accumulation.max_micro_batch_size < failed
    again = to_measure(smaller, plan)
    assert again is None or again.micro_batch_size < failed


@given(st.integers(1, 400), st.integers(0, 6 << 30))
@settings(max_examples=40, deadline=None)
def test_what_was_seen_to_fit_fits(batch_size: int, above: int) -> None:
    used = min(400 * MIB + above, CARD.capacity_bytes)
    profile = measured(batch_size, used)
    smaller, plan = corrected(goal(batch_size), profile)
    (placement,) = plan.placements
    assert smaller.targets == (CARD,)
    assert placement.verdict is Verdict.FITS
    assert placement.device_used_bytes == placement.upper_bound_bytes == used
    assert placement.spare_bytes == CARD.capacity_bytes - used
    assert "fits: it took" in placement.reason
    # it says nothing of a larger batch
    before = plan_job(TIMELINES, goal(batch_size + 1)).placements
    assert (
        with_evidence(
            plan_job(TIMELINES, goal(batch_size + 1)), goal(batch_size + 1), [profile]
        ).placements
        == before
    )


@given(st.integers(50, 400), st.floats(1.01, 4.0))
@settings(max_examples=40, deadline=None)
def test_the_more_it_took_the_less_is_planned(failed: int, factor: float) -> None:
    used = int(CARD.capacity_bytes * factor)
    more = int(used * 1.2)
    sizes = [
        corrected(goal(failed), measured(failed, size))[1].batch_sizes[0] for size in (used, more)
    ]
    first, second = (one.recommended_batch_size for one in sizes)
    assert second <= first < failed


def test_the_estimate_is_taken_to_be_off_by_the_same_factor() -> None:
    estimate = estimate_memory(TIMELINES, job(200), CARD.gpu_type)
    used = CARD.capacity_bytes * 2
    smaller, _ = corrected(goal(200), measured(200, used))
    (limited,) = smaller.targets
    context = CARD.gpu_type.context_bytes
    factor = (used - context) / estimate.peak_reserved_bytes
    at = estimate_memory(TIMELINES, job(limited.most_samples), CARD.gpu_type)
    assert at.peak_reserved_bytes * factor + context <= CARD.capacity_bytes * 0.95 + MIB
    above = estimate_memory(TIMELINES, job(limited.most_samples + 2), CARD.gpu_type)
    assert above.peak_reserved_bytes * factor + context > CARD.capacity_bytes * 0.95


@pytest.mark.parametrize(
    "fields",
    [
        {"device_type": DeviceType.CPU},
        {"gpu_type": "other"},
        {"gpu_type": ""},
        {"out_of_memory": True, "memory_limit_bytes": 5 << 30},
        {"out_of_memory": True, "shared": True},
        {"device_used_bytes": 7 << 30, "memory_limit_bytes": 8 << 30},
    ],
    ids=str,
)
def test_some_measurements_decide_nothing(fields: dict[str, Any]) -> None:
    profile = replace(measured(8, GIB), **fields)
    evidence = Evidence.of(profile, CARD)
    assert evidence.finding is Finding.NOTHING
    assert evidence.why.endswith(".")
    asked = goal(8, 64)
    _, plan = corrected(asked, profile)
    assert plan == plan_job(TIMELINES, asked)


def test_a_rank_alone_fits_with_room_for_nccl() -> None:
    ddp = replace(job(8), data_parallel=DataParallel(strategy=DataParallelStrategy.DDP))
    tight = CARD.capacity_bytes - COMMUNICATION_BYTES
    assert finding(measured(8, tight, job=ddp)) is Finding.FITS
    assert finding(measured(8, tight + 1, job=ddp)) is Finding.NOTHING
    assert finding(measured(8, tight + 1)) is Finding.FITS


def test_more_than_there_is_does_not_fit() -> None:
    assert finding(measured(8, 7 << 30)) is Finding.DOES_NOT_FIT
    of_tensors = measured(8, 7 << 30, memory_limit_bytes=9 << 30, peak_allocated_bytes=6 << 30)
    assert finding(of_tensors) is Finding.DOES_NOT_FIT
    assert finding(measured(8, 6 << 30)) is Finding.FITS
    # what was given back before the end counts too
    assert finding(measured(8, GIB, peak_reserved_bytes=7 << 30)) is Finding.DOES_NOT_FIT


def test_accumulation_takes_no_less() -> None:
    once, several = job(8), replace(job(8), loop=replace(job(8).loop, accumulation_steps=4))
    fits = Evidence.of(measured(8, GIB), CARD)
    assert fits.says_that_it_fits(once)
    assert not fits.says_that_it_fits(several)
    assert Evidence.of(measured(8, GIB, job=several), CARD).says_that_it_fits(once)
    fails = Evidence.of(measured(8, job=several), CARD)
    assert fails.says_that_it_does_not_fit(several)
    assert not fails.says_that_it_does_not_fit(once)
    assert Evidence.of(measured(8), CARD).says_that_it_does_not_fit(several)


def test_what_is_planned_is_measured() -> None:
    asked = goal(8, 100_000)
    plan = plan_job(TIMELINES, asked)
    found = to_measure(asked, plan)
    assert plan.accumulation is not None
    assert found is not None
    assert found.micro_batch_size == plan.accumulation.micro_batch_size
    assert found.loop.accumulation_steps == 2 < plan.accumulation.accumulation_steps
    assert to_measure(goal(8), plan_job(TIMELINES, goal(8))) == job(8)
    large = to_measure(goal(100_000), plan_job(TIMELINES, goal(100_000)))
    recommended = plan.batch_sizes[0].recommended_batch_size
    assert large == job(recommended)


def test_when_not_even_one_sample_fits() -> None:
    smaller, plan = corrected(goal(1, 64), measured(1))
    assert plan.placements[0].verdict is Verdict.DOES_NOT_FIT
    assert plan.batch_sizes[0].max_batch_size == 0
    assert plan.accumulation is not None
    assert not plan.accumulation.feasible
    assert to_measure(smaller, plan) is None
