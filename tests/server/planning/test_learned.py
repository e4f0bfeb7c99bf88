"""What profiles teach: contexts, and quantiles of residuals that hold for those who come next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from timelines import MIB, Fixed, gpu, job, target

from memplan.types import (
    CatalogModel,
    DeviceType,
    GpuType,
    MeasuredProfile,
    Model,
    Prediction,
    Verdict,
)
from memplan_server.planning import (
    Learned,
    estimate_memory,
    place,
    plan_accumulation,
    recommend_batch_sizes,
    residuals,
    with_learned_context,
)
from memplan_server.planning.learned import Rows

CARD = replace(gpu(16 << 30), sources={"context_bytes": "estimate by SM count"})
SLACK = 100 * MIB
GIB = 1 << 30
CONFIDENCES = (0.9, 0.95, 0.98, 0.99)
SHIPPED = {0.9: 0.01, 0.95: 0.02, 0.98: 0.03, 0.99: 0.04}
SHARES = st.floats(0, 1, allow_nan=False)


def measured(
    model: str = "a/b",
    batch_size: int = 1,
    *,
    off_bytes: int = 0,
    context: int = 300 * MIB,
    **fields: Any,
) -> MeasuredProfile:
    """A job that was estimated to reserve a GiB and took `off_bytes` more.

    Its tensors are expected to take a tenth, so that just a GiB can be wrong.
    """
    described = job(batch_size)
    plain = MeasuredProfile(
        device_type=DeviceType.CUDA,
        gpu_type=CARD.name,
        job=replace(described, model=Model(catalog=CatalogModel(name=model))),
        job_digest=model,
        micro_batch_size=batch_size,
        device_used_bytes=GIB + context + off_bytes,
        context_after_bytes=context,
        memory_limit_bytes=CARD.usable_bytes,
        library_versions={"torch": "2.11", "driver": "580.1", "timm": "1"},
        prediction=Prediction(
            peak_allocated_bytes=GIB // 10,
            peak_reserved_bytes=GIB,
            family="dense",
            version="now",
        ),
    )
    return replace(plain, **fields)


def rows_of(*profiles: MeasuredProfile, gpu_type: GpuType = CARD) -> dict[str, Rows]:
    return residuals(profiles, gpu_type, slack_bytes=SLACK, version="now")


def learned(values: Sequence[float], models: int = 3) -> Learned:
    rising = tuple(sorted(values))
    return Learned({(CARD.name, "dense"): Rows(above=rising, below=rising, models=models)})


def quantile(values: Sequence[float], confidence: float, models: int = 3) -> float:
    shipped = SHIPPED[confidence], SHIPPED[confidence]
    return learned(values, models).quantiles(CARD.name, "dense", confidence, shipped)[0]


@given(st.lists(SHARES, min_size=10, max_size=140), st.sampled_from(CONFIDENCES))
@example(values=[0.0] * 99 + [1.0], confidence=0.99)
def test_a_quantile_holds_for_the_share_it_promises(values: list[float], confidence: float) -> None:
    """Each of n + 1 in turn is the one that comes next."""
    assume(len(values) * (1 - confidence) >= 1 - 1e-9)
    held = sum(
        value <= quantile(values[:i] + values[i + 1 :], confidence)
        for i, value in enumerate(values)
    )
    assert held >= confidence * len(values) - 1e-9


@given(st.lists(SHARES, min_size=2, max_size=40), st.sampled_from(CONFIDENCES))
def test_with_few_rows_no_more_than_one_of_them_is_left_out(
    values: list[float], confidence: float
) -> None:
    assume(len(values) * (1 - confidence) < 1 - 1e-9)
    held = sum(
        value <= quantile(values[:i] + values[i + 1 :], confidence)
        for i, value in enumerate(values)
    )
    assert held >= len(values) - 1


@given(st.lists(SHARES, min_size=1, max_size=140), st.integers(1, 5))
def test_quantiles_rise_with_the_confidence(values: list[float], models: int) -> None:
    found = [quantile(values, c, models) for c in CONFIDENCES]
    assert found == sorted(found)


@given(st.lists(SHARES, min_size=1, max_size=140), st.integers(1, 5), st.sampled_from(CONFIDENCES))
def test_too_few_rows_or_models_only_widen(
    values: list[float], models: int, confidence: float
) -> None:
    enough = len(values) + 1 >= 1 / (1 - confidence) - 1e-9 and models >= 3
    found = quantile(values, confidence, models)
    if enough:
        assert found in values
    else:
        assert found == max(SHIPPED[confidence], *values)


@given(st.lists(SHARES, min_size=1, max_size=60), SHARES, st.sampled_from(CONFIDENCES))
def test_a_larger_residual_never_narrows(
    values: list[float], larger: float, confidence: float
) -> None:
    before = quantile(values, confidence)
    grown = [max(value, larger) for value in values]
    assert quantile(grown, confidence) >= before


def test_enough_rows_narrow_what_is_shipped() -> None:
    assert quantile([0.0] * 9, 0.9) == 0
    assert quantile([0.0] * 9, 0.9, models=2) == 0.01
    assert quantile([0.0] * 8, 0.9) == 0.01
    assert quantile([0.0] * 98, 0.99) == 0.04
    assert quantile([0.0] * 99, 0.99) == 0


def test_other_gpu_types_and_families_keep_what_is_shipped() -> None:
    known = learned([0.5] * 100)
    assert known.quantiles("other", "dense", 0.9, (0.1, 0.2)) == (0.1, 0.2)
    assert known.quantiles(CARD.name, "convolution", 0.9, (0.1, 0.2)) == (0.1, 0.2)


def test_the_context_is_the_median_over_models() -> None:
    profiles = [
        measured("a/a", context=400 * MIB),
        *[measured("a/a", size, context=900 * MIB) for size in (2, 3, 4)],  # older
        measured("b/b", context=350 * MIB),
        measured("c/c", context=500 * MIB, library_versions={"torch": "2.12"}),
    ]
    found = with_learned_context(CARD, profiles)
    assert found.context_bytes == 400 * MIB
    source = found.sources["context_bytes"]
    assert source == (
        "measured: median of 3 models, from 6 profiles stored on this server (driver 580.1; torch "
        "2.11, 2.12)"
    )
    assert with_learned_context(CARD, profiles[:-1]) == CARD
    assert replace(found, context_bytes=0, sources={}) == replace(CARD, context_bytes=0, sources={})


@pytest.mark.parametrize(
    "fields",
    [
        {"device_type": DeviceType.CPU},
        {"out_of_memory": True},
        {"shared": True},
        {"context_after_bytes": 0},
    ],
    ids=str,
)
def test_contexts_that_are_not_the_jobs_own_do_not_count(fields: dict[str, Any]) -> None:
    fine = [measured("a/a"), measured("b/b")]
    assert with_learned_context(CARD, [*fine, measured("c/c", **fields)]) == CARD


def test_residuals_lie_beyond_the_slack() -> None:
    found = rows_of(
        measured(batch_size=1, off_bytes=99 * MIB),
        measured(batch_size=2, off_bytes=SLACK + GIB // 4),
        measured("b/b", batch_size=1, off_bytes=-SLACK - GIB // 8),
        measured("b/b", batch_size=1, off_bytes=GIB),  # older
    )
    assert found == {"dense": Rows(above=(0.0, 0.0, 0.25), below=(0.0, 0.0, 0.125), models=2)}
    # against the context that is known now
    wider = replace(CARD, context_bytes=CARD.context_bytes + SLACK)
    assert rows_of(measured(off_bytes=2 * SLACK), gpu_type=wider)["dense"].above == (0.0,)


@pytest.mark.parametrize(
    "fields",
    [
        {"device_type": DeviceType.CPU},
        {"out_of_memory": True},
        {"shared": True},
        {"device_used_bytes": 0},
        {"memory_limit_bytes": 8 << 30},
        {"prediction": None},
        {"prediction": Prediction(peak_reserved_bytes=GIB, family="dense", version="before")},
    ],
    ids=str,
)
def test_residuals_that_say_nothing_are_left_out(fields: dict[str, Any]) -> None:
    assert rows_of(measured(off_bytes=GIB, **fields)) == {}


@given(
    st.lists(SHARES, min_size=1, max_size=120),
    st.integers(1, 4),
    st.integers(1, 200),
    st.sampled_from((2 << 30, 3 << 30, 6 << 30)),
)
@settings(max_examples=25, deadline=None)
def test_every_answer_rests_on_what_was_learned(
    values: list[float], models: int, batch_size: int, memory: int
) -> None:
    timelines, asked, known = Fixed(), target(memory), learned(values, models)
    known = Learned({(asked.gpu_type.name, "dense"): known.rows[CARD.name, "dense"]})
    described = job(batch_size)
    estimates = [
        estimate_memory(timelines, described, asked.gpu_type, confidence=c, learned=known)
        for c in CONFIDENCES
    ]
    uppers = [e.upper_bound_bytes for e in estimates]
    lowers = [e.lower_bound_bytes for e in estimates]
    assert uppers == sorted(uppers)
    assert lowers == sorted(lowers, reverse=True)
    (placement,) = place(timelines, described, [asked], learned=known)
    if placement.verdict is Verdict.FITS:  # near the limit the estimate gives back what is cached
        assert placement.upper_bound_bytes == uppers[-1]
    (batch,) = recommend_batch_sizes(timelines, described, [asked], learned=known)
    if batch.recommended_batch_size:
        safe = estimate_memory(
            timelines, job(batch.recommended_batch_size), asked.gpu_type, learned=known
        )
        assert safe.upper_bound_bytes <= memory
    plan = plan_accumulation(timelines, job(0), asked, global_batch_size=512, learned=known)
    assert plan.feasible == bool(plan.micro_batch_size)


def test_more_seen_locally_means_smaller_batches() -> None:
    asked = target(6 << 30)
    sizes = []
    for share in (0.0, 0.2, 0.8):
        rows = learned([share] * 120).rows[CARD.name, "dense"]
        known = Learned({(asked.gpu_type.name, "dense"): rows})
        (one,) = recommend_batch_sizes(Fixed(), job(), [asked], learned=known)
        plan = plan_accumulation(Fixed(), job(0), asked, global_batch_size=4096, learned=known)
        sizes.append((one.recommended_batch_size, plan.micro_batch_size))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_what_was_unmeasured_is_told_as_measured() -> None:
    timelines, described = Fixed(traits=("recurrent",)), job(256)
    estimate = estimate_memory(timelines, described, CARD)
    between = target((estimate.device_used_bytes + estimate.upper_bound_bytes) // 2)
    (before,) = place(timelines, described, [between])
    assert "no job of this kind was measured" in before.reason
    rows = Rows(above=(0.0,), below=(0.0,), models=1)
    known = Learned({(between.gpu_type.name, "unmeasured"): rows})
    (after,) = place(timelines, described, [between], learned=known)
    assert "such jobs measured on such GPUs: 1" in after.reason
    assert after.upper_bound_bytes == before.upper_bound_bytes
