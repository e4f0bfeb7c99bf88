"""Planning: properties that every answer has."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from timelines import MIB, Fixed, gpu, job, network, target

from memplan.types import (
    CatalogModel,
    DataParallel,
    DataParallelStrategy,
    GpuType,
    Model,
    Phase,
    Precision,
    Remedy,
    TrainingJob,
    Verdict,
)
from memplan_server.errors import InvalidJob, Violation
from memplan_server.planning import (
    estimate_memory,
    place,
    plan_accumulation,
    recommend_batch_sizes,
)
from memplan_server.planning.accumulation import split
from memplan_server.planning.estimate import alive_after
from memplan_server.planning.probe import Probe, largest
from memplan_server.simulate.repetition import with_third_step
from memplan_server.timeline import Timeline

LAYERS = st.lists(
    st.tuples(st.integers(4, 64 * MIB), st.integers(16, 4 * MIB)), min_size=1, max_size=6
).map(tuple)
MEMORY = st.integers(400 * MIB, 24 << 30)
CONFIDENCES = (0.5, 0.9, 0.93, 0.95, 0.98, 0.99)
TRAITS = ((), ("recurrent",))
BORDERS = (
    (28099900, 2247164),
    (62672798, 1651610),
    (20206161, 3767840),
    (14723187, 2653875),
    (20311940, 2303205),
)
"""Layers whose reserved bytes fall between batch 4 and 7."""


@given(LAYERS, st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_the_breakdown_adds_up_exactly(layers: tuple[tuple[int, int], ...], batch: int) -> None:
    estimate = estimate_memory(Fixed(layers), job(batch), gpu(8 << 30))
    parts = [getattr(estimate.breakdown, f.name) for f in fields(estimate.breakdown)]
    assert sum(parts) == estimate.device_used_bytes
    assert min(parts) >= 0
    assert estimate.lower_bound_bytes <= estimate.device_used_bytes <= estimate.upper_bound_bytes
    assert estimate.breakdown.parameter_bytes == estimate.model_state.parameter_bytes


@given(LAYERS, st.integers(1, 300), st.sampled_from(TRAITS))
@settings(max_examples=40, deadline=None)
def test_more_confidence_never_gives_tighter_bounds(
    layers: tuple[tuple[int, int], ...], batch: int, traits: tuple[str, ...]
) -> None:
    timelines = Fixed(layers, traits)
    found = [
        estimate_memory(timelines, job(batch), gpu(8 << 30), confidence=c) for c in CONFIDENCES
    ]
    assert [e.confidence for e in found] == [0.9, 0.9, 0.95, 0.95, 0.98, 0.99]
    uppers = [e.upper_bound_bytes for e in found]
    lowers = [e.lower_bound_bytes for e in found]
    assert uppers == sorted(uppers)
    assert lowers == sorted(lowers, reverse=True)
    assert len({e.device_used_bytes for e in found}) == 1


@given(LAYERS, MEMORY, st.integers(1, 300), st.sampled_from(TRAITS))
@settings(max_examples=40, deadline=None, derandomize=True)
@example(layers=BORDERS, memory=991_193_317, batch=8, traits=())
def test_more_confidence_never_gives_more(
    layers: tuple[tuple[int, int], ...], memory: int, batch: int, traits: tuple[str, ...]
) -> None:
    timelines, asked = Fixed(layers, traits), target(memory)
    batches, plans, decided = [], [], []
    for c in CONFIDENCES:
        (found,) = recommend_batch_sizes(timelines, job(), [asked], confidence=c)
        plan = plan_accumulation(timelines, job(0), asked, global_batch_size=512, confidence=c)
        (placement,) = place(timelines, job(batch), [asked], confidence=c)
        estimate = estimate_memory(timelines, job(batch), asked.gpu_type, confidence=c)
        assert {found.confidence, plan.confidence, placement.confidence} == {estimate.confidence}
        batches.append(found.recommended_batch_size)
        plans.append(plan.feasible)
        decided.append(placement.verdict)
    assert batches == sorted(batches, reverse=True)
    assert plans == sorted(plans, reverse=True)
    first = decided[0]  # more confidence may only lose it
    assert decided in [[first] * n + [Verdict.UNCERTAIN] * (6 - n) for n in range(7)]


def test_a_verdict_may_need_less_confidence() -> None:
    timelines, large = Fixed(), gpu(80 << 30, "large")
    low, high = (
        estimate_memory(timelines, job(512), large, confidence=c).upper_bound_bytes
        for c in (0.9, 0.99)
    )
    between = target((low + high) // 2)
    fits, uncertain = (
        place(timelines, job(512), [between], confidence=c, catalog=[large])[0] for c in (0.9, 0.99)
    )
    assert (fits.verdict, uncertain.verdict) == (Verdict.FITS, Verdict.UNCERTAIN)
    assert fits.upper_bound_bytes == low < high == uncertain.upper_bound_bytes
    assert "large" in {remedy.gpu_type for remedy in uncertain.remedies}


def test_storages_that_are_made_again_are_alive_again() -> None:
    once = Fixed().get(job(), gpu(8 << 30))
    again = with_third_step(once)
    assert again.step.max() == 2
    for event in (len(once.events) // 2, len(again.events) * 4 // 5, len(again.events) - 1):
        alive: set[int] = set()
        for at in again.events[: event + 1].tolist():
            alive.symmetric_difference_update({at if at >= 0 else ~at})
        assert set(np.flatnonzero(alive_after(again, event)).tolist()) == alive


def test_the_largest_modules_come_first() -> None:
    estimate = estimate_memory(Fixed(), job(32), gpu(8 << 30))
    held = [m.activation_bytes for m in estimate.top_modules]
    assert held == sorted(held, reverse=True)
    assert estimate.top_modules[0].module == "layer0"
    assert estimate.peak_phase is Phase.BACKWARD


@given(LAYERS, MEMORY)
@settings(max_examples=40, deadline=None)
def test_the_maximum_fits_and_the_next_does_not(
    layers: tuple[tuple[int, int], ...], memory: int
) -> None:
    timelines, asked = Fixed(layers), target(memory)
    (answer,) = recommend_batch_sizes(timelines, job(), [asked])
    probe = Probe(timelines, job(), asked.gpu_type)
    best = answer.max_batch_size
    if best:
        assert probe.fits(best, memory)
    assert best == 1 << 24 or not probe.fits(best + 1, memory)
    assert 0 <= answer.recommended_batch_size <= best
    assert answer.recommended_batch_size % answer.multiple_of == 0
    if answer.recommended_batch_size:
        assert answer.recommended_device_used_bytes <= memory - int(memory * 0.05)
    sizes = [p.batch_size for p in answer.curve]
    assert sizes == sorted(set(sizes))


@given(LAYERS, st.integers(1, 500))
@settings(max_examples=40, deadline=None)
def test_quick_answers_are_those_of_a_full_replay(
    layers: tuple[tuple[int, int], ...], batch: int
) -> None:
    probe = Probe(Fixed(layers), job(), gpu(8 << 30))
    estimate = estimate_memory(Fixed(layers), job(batch), gpu(8 << 30))
    assert probe.reserved_bytes(batch) == estimate.peak_reserved_bytes
    assert probe.allocated_bytes(batch) <= estimate.peak_allocated_bytes


@given(st.integers(0, 60), st.integers(0, 60), st.integers(-5, 200))
def test_search_finds_the_border_from_any_guess(limit: int, border: int, guess: int) -> None:
    assert largest(lambda n: n <= border, limit, guess) == min(limit, border)


@given(st.integers(1, 1 << 20), st.integers(1, 5000))
def test_micro_batches_make_the_batch_exactly(samples: int, limit: int) -> None:
    chosen = split(samples, limit)
    assert chosen.samples == samples
    assert 1 <= chosen.last_micro_batch_size <= chosen.micro_batch_size <= limit
    assert chosen.steps <= int(-(-samples // limit) * 1.25)


def test_a_prime_does_not_collapse_to_one() -> None:
    chosen = split(127, 32)
    assert (chosen.micro_batch_size, chosen.steps, chosen.last_micro_batch_size) == (32, 4, 31)


@given(LAYERS, MEMORY, st.integers(1, 3000), st.sampled_from((1, 2, 8)))
@settings(max_examples=40, deadline=None)
def test_accumulation_reaches_the_global_batch(
    layers: tuple[tuple[int, int], ...], memory: int, per_rank: int, ranks: int
) -> None:
    plan = plan_accumulation(
        Fixed(layers),
        job(0),
        target(memory),
        global_batch_size=per_rank * ranks,
        data_parallel_size=ranks,
    )
    if not plan.feasible:
        assert plan.reason
        assert plan.remedies
        return
    full = (plan.accumulation_steps - 1) * plan.micro_batch_size
    assert (full + plan.last_micro_batch_size) * ranks == plan.global_batch_size
    assert plan.device_used_bytes <= memory


class OneBatchSize(Fixed):
    """Timelines that hold for the batch size that they were asked about, and which those were."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[int] = set()

    def get(self, job: TrainingJob, gpu_type: GpuType) -> Timeline:
        self.asked.add(job.micro_batch_size)
        held = (job.micro_batch_size,)
        return replace(super().get(job, gpu_type), affine=False, traced_batch_sizes=held)


def test_a_job_is_placed_without_simulating_other_batch_sizes() -> None:
    timelines = OneBatchSize()
    (placement,) = place(timelines, job(8), [target(24 << 30)])
    assert placement.verdict is Verdict.FITS
    assert timelines.asked == {8}


def test_gradients_that_stay_alive_are_simulated() -> None:
    timelines = Fixed(layers=((200 * MIB, 64 * 1024), (200 * MIB, 4 * MIB)))
    plan = plan_accumulation(timelines, job(0), target(2 << 30), global_batch_size=512)
    one = Probe(timelines, job(), gpu(2 << 30)).device_used_bytes(plan.micro_batch_size)
    assert plan.accumulation_steps > 1
    assert plan.device_used_bytes > one


def test_batch_norm_is_warned_about() -> None:
    timelines = Fixed(traits=("batch_norm", "convolution"))
    plan = plan_accumulation(timelines, job(0), target(1 << 30), global_batch_size=4096)
    assert any("BatchNorm" in sentence for sentence in plan.advice)


@given(LAYERS, st.integers(1, 200), st.lists(MEMORY, min_size=2, max_size=4))
@settings(max_examples=30, deadline=None)
def test_more_memory_is_never_a_worse_verdict(
    layers: tuple[tuple[int, int], ...], batch: int, memories: list[int]
) -> None:
    order = [Verdict.DOES_NOT_FIT, Verdict.UNCERTAIN, Verdict.FITS]
    placements = place(Fixed(layers), job(batch), [target(m) for m in sorted(memories)])
    ranks = [order.index(p.verdict) for p in placements]
    assert ranks == sorted(ranks)
    for placement in placements:
        assert placement.spare_bytes == 0 or placement.missing_bytes == 0


def test_remedies_name_what_would_fit() -> None:
    catalog = [gpu(2 << 30, "small"), gpu(16 << 30, "middle"), gpu(80 << 30, "large")]
    (placement,) = place(
        Fixed(), job(1024), [target(6 << 30)], global_batch_size=1024, catalog=catalog
    )
    assert placement.verdict is Verdict.DOES_NOT_FIT
    descriptions = [r.description for r in placement.remedies]
    assert any(d.startswith("fits with micro-batch") for d in descriptions)
    assert "fits on middle" in descriptions
    steps = placement.remedies[0]
    assert steps.micro_batch_size * steps.accumulation_steps >= 1024


class Cheaper(Fixed):
    """A network with much state; checkpointing leaves a tenth of the activations."""

    def __init__(self, *, checkpointing: bool = True) -> None:
        super().__init__(layers=((400 * MIB, 400 * MIB), (400 * MIB, 100 * MIB)))
        self.checkpointing = checkpointing
        self.asked: list[TrainingJob] = []
        self.made: dict[tuple[tuple[int, int], ...], Timeline] = {}

    def get(self, job: TrainingJob, gpu_type: GpuType) -> Timeline:
        self.asked.append(job)
        if job.activation_checkpointing and not self.checkpointing:
            raise InvalidJob(Violation("job.activation_checkpointing", "It has none."))
        shards = job.data_parallel.shard_count or 1
        left = 0.1 if job.activation_checkpointing else 1.0
        layers = tuple((size // shards, int(kept * left)) for size, kept in self.layers)
        steps = min(2, max(1, job.loop.accumulation_steps))
        key = (*layers, (steps, 0))
        if key not in self.made:
            self.made[key] = network(layers, micro_steps=steps)
        return self.made[key]


NAMED = Model(catalog=CatalogModel(name="a/b"))
RANK = DataParallel(strategy=DataParallelStrategy.DDP, bucket_cap_mb=25)
SHARDED = DataParallel(
    strategy=DataParallelStrategy.FSDP, shard_count=8, reshard_after_forward=True
)

LESS, ONE = "activation checkpointing", {"micro_batch_size": 1}
CHECKPOINTED = Remedy(activation_checkpointing=True)


@pytest.mark.parametrize(
    ("memory", "batch", "checkpointing", "said", "remedy"),
    [
        (3000, 1, True, f"fits with {LESS}", CHECKPOINTED),
        (3000, 4, True, f"fits with {LESS}, micro-batch 1", replace(CHECKPOINTED, **ONE)),
        (3000, 1, False, "fits with fsdp over the 8 ranks", Remedy(data_parallel=SHARDED)),
        (2000, 1, True, "fits with fsdp over the 8 ranks", Remedy(data_parallel=SHARDED)),
        (
            1000,
            1,
            True,
            f"fits with fsdp over the 8 ranks and {LESS}",
            replace(CHECKPOINTED, data_parallel=SHARDED),
        ),
    ],
)
def test_where_not_one_sample_fits_less_may_be_kept(
    memory: int, batch: int, checkpointing: bool, said: str, remedy: Remedy
) -> None:
    asked = replace(job(batch, Precision.AMP_FP16), data_parallel=RANK, model=NAMED)
    timelines = Cheaper(checkpointing=checkpointing)
    (placement,) = place(timelines, asked, [target(memory * MIB)], data_parallel_size=8)
    assert placement.verdict is not Verdict.FITS
    assert placement.remedies == (replace(remedy, description=said),)


def test_a_call_in_a_hurry_is_answered_without() -> None:
    timelines = Cheaper()
    asked = replace(job(1, Precision.AMP_FP16), data_parallel=RANK, model=NAMED)
    (placement,) = place(
        timelines, asked, [target(1000 * MIB)], data_parallel_size=8, patient=lambda: False
    )
    assert placement.remedies == ()
    assert not any(j.activation_checkpointing for j in timelines.asked)


def test_where_smaller_micro_batches_fit_nothing_more_is_simulated() -> None:
    timelines = Cheaper()
    asked = replace(job(64, Precision.AMP_FP16), data_parallel=RANK, model=NAMED)
    (placement,) = place(timelines, asked, [target(8 << 30)], data_parallel_size=8)
    assert placement.remedies[0].description.startswith("fits with micro-batch")
    assert not any(j.activation_checkpointing for j in timelines.asked)
    assert {j.data_parallel for j in timelines.asked} == {RANK}


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.AMP_FP16])
def test_lower_precision_is_a_remedy_for_full_precision_only(precision: Precision) -> None:
    (placement,) = place(Fixed(), job(1024, precision), [target(7 << 30)])
    offered = {r.precision for r in placement.remedies}
    assert (Precision.AMP_BF16 in offered) == (precision is Precision.FP32)
