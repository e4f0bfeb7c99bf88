"""Bounds: which family a job is of, and that margins mean what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from convolutions import CONVOLUTION
from hypothesis import given
from hypothesis import strategies as st
from timelines import network

from memplan.types import GpuType
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.libraries import COMMUNICATION_BYTES
from memplan_server.planning import uncertainty
from memplan_server.planning.residual import residual, unsure_bytes
from memplan_server.planning.uncertainty import CONFIDENCE, FAMILIES, Margin, Residuals
from memplan_server.timeline import Convolution, Timeline

CATALOG = GpuCatalog.load()
A100, L40S, V100 = (
    CATALOG.get(name) for name in ("nvidia-a100-40gb", "nvidia-l40s", "nvidia-v100-16gb")
)
STEM = replace(CONVOLUTION, image=(3, 224, 224), kernel=(64, 3, 7, 7), result=(64, 112, 112))
BLOCK = replace(STEM, image=(64, 56, 56), kernel=(64, 64, 3, 3), stride=(1, 1))
PATCHES = replace(STEM, kernel=(768, 3, 16, 16), stride=(16, 16))
GROUPED = replace(BLOCK, kernel=(64, 16, 3, 3), groups=4)
POINTWISE = replace(BLOCK, kernel=(256, 64, 1, 1))


def timeline(
    *convolutions: Convolution, affine: bool = True, traits: tuple[str, ...] = ()
) -> Timeline:
    made = network(((1 << 20, 1 << 16),), traits=traits)
    return replace(made, convolutions=convolutions, affine=affine)


@pytest.mark.parametrize(
    ("made", "gpu_type", "family"),
    [
        (timeline(), A100, "dense"),
        (timeline(PATCHES, traits=("attention",)), A100, "dense"),
        (timeline(STEM, POINTWISE), A100, "dense"),
        (timeline(STEM, BLOCK), A100, "convolution"),
        (timeline(STEM, BLOCK, GROUPED), A100, "grouped_convolution"),
        (timeline(STEM, BLOCK, replace(GROUPED, channels_last=True)), A100, "convolution"),
        (timeline(STEM, BLOCK), V100, "unmeasured"),
        (
            timeline(*(replace(c, channels_last=True) for c in (STEM, BLOCK))),
            A100,
            "channels_last_convolution",
        ),
        (timeline(traits=("attention",)), A100, "dense"),
        (timeline(traits=("recurrent",)), A100, "unmeasured"),
        (timeline(traits=("data_parallel",)), A100, "dense"),
        (timeline(traits=("data_parallel", "fully_sharded")), A100, "unmeasured"),
        (timeline(affine=False), A100, "unmeasured"),
        (
            timeline(
                STEM,
                replace(BLOCK, image=(64, 8, 56, 56), kernel=(64, 64, 3, 3, 3), stride=(1, 1, 1)),
            ),
            A100,
            "unmeasured",
        ),
    ],
)
def test_family(made: Timeline, gpu_type: GpuType, family: str) -> None:
    assert uncertainty.family(made, gpu_type) == family
    assert uncertainty.reason(made, gpu_type) == FAMILIES[family]


def test_what_was_never_measured_has_the_widest_margins() -> None:
    unmeasured = uncertainty.margin(timeline(traits=("recurrent",)), L40S)
    known = [timeline(), timeline(STEM, BLOCK), timeline(STEM, BLOCK, GROUPED)]
    margins = [uncertainty.margin(m, L40S) for m in known]
    assert unmeasured.above == 2 * max(m.above for m in margins)
    assert unmeasured.below == 2 * max(m.below for m in margins)


def test_an_estimated_context_widens_both_bounds() -> None:
    guessed = replace(L40S, sources={"context_bytes": "estimate by SM count"})
    peaks = 8 << 30, 10 << 30
    known, unsure = (uncertainty.bounds(timeline(), g, *peaks) for g in (L40S, guessed))
    assert unsure.upper_bytes - known.upper_bytes == guessed.context_bytes // 2
    assert known.lower_bytes - unsure.lower_bytes == guessed.context_bytes // 2


def test_several_ranks_may_take_what_nccl_takes_more() -> None:
    peaks = 8 << 30, 10 << 30
    alone, rank = (
        uncertainty.bounds(timeline(traits=traits), A100, *peaks)
        for traits in ((), ("data_parallel",))
    )
    assert rank.upper_bytes - alone.upper_bytes == COMMUNICATION_BYTES
    assert rank.lower_bytes == alone.lower_bytes


@pytest.mark.parametrize(
    ("asked", "held"), [(0.5, 0.9), (0.9, 0.9), (0.91, 0.95), (0.96, 0.98), (0.99, 0.99)]
)
def test_a_confidence_without_quantiles_gets_the_next_above(asked: float, held: float) -> None:
    assert uncertainty.held_confidence(asked) == held
    for made in (timeline(), timeline(STEM, BLOCK), timeline(traits=("recurrent",))):
        assert uncertainty.margin(made, A100, asked) == uncertainty.margin(made, A100, held)


def test_the_default_is_the_highest_confidence() -> None:
    assert uncertainty.margin(timeline(), A100) == uncertainty.margin(timeline(), A100, CONFIDENCE)
    assert uncertainty.confidences_from(CONFIDENCE) == (CONFIDENCE,)


GOOD = """
slack_mib = 10
[dense]
above = { "0.90" = 0.02, "0.99" = 0.04 }
below = { "0.99" = 0.03, "0.90" = 0.01 }
[convolution]
above = { "0.90" = 0.01, "0.99" = 0.20 }
below = { "0.90" = 0.00, "0.99" = 0.00 }
"""


def test_residuals_are_read_and_what_is_missing_is_twice_the_worst() -> None:
    found = Residuals.parse(GOOD)
    assert (found.slack_bytes, found.confidences) == (10 << 20, (0.9, 0.99))
    assert found.quantiles["dense"] == {0.9: (0.02, 0.01), 0.99: (0.04, 0.03)}
    assert found.quantiles["unmeasured"] == {0.9: (0.04, 0.02), 0.99: (0.4, 0.06)}
    assert found.quantiles.keys() == FAMILIES.keys()


@pytest.mark.parametrize(
    ("good", "wrong"),
    [
        ('"0.99" = 0.04', '"0.99" = 0.01'),  # falls
        ('"0.90" = 0.01, "0.99" = 0.20', '"0.90" = -0.01, "0.99" = 0.20'),  # negative
        ('"0.99" = 0.03, "0.90" = 0.01', '"0.99" = 0.03'),  # one side has fewer
        ('"0.90"', '"0.91"'),  # not the same in all families
        ('"0.99"', '"0.98"'),  # not the default's
    ],
)
def test_residuals_that_make_no_sense_are_not_loaded(good: str, wrong: str) -> None:
    everywhere = -1 if good == '"0.99"' else 1
    with pytest.raises(AssertionError):
        Residuals.parse(GOOD.replace(good, wrong, everywhere))


@given(
    above=st.floats(0, 2),
    below=st.floats(0, 2),
    slack=st.integers(0, 1 << 30),
    allocated=st.integers(0, 1 << 38),
    packing=st.integers(0, 1 << 35),
    context=st.integers(0, 1 << 30),
)
def test_bounds_lie_about_the_estimate_and_widen_with_what_can_be_wrong(
    above: float, below: float, slack: int, allocated: int, packing: int, context: int
) -> None:
    margin = Margin(above, below, slack)
    reserved = allocated + packing
    limits = margin.bounds(allocated, reserved, context)
    assert limits.lower_bytes <= max(0, reserved + context - slack)
    assert reserved + context + slack <= limits.upper_bytes
    looser = margin.bounds(allocated // 2, reserved, context)
    assert looser.lower_bytes <= limits.lower_bytes
    assert limits.upper_bytes <= looser.upper_bytes
    more = margin.bounds(allocated, reserved + (1 << 20), context)
    assert limits.upper_bytes + (1 << 20) <= more.upper_bytes


def test_packing_is_what_can_be_wrong() -> None:
    tight, loose = (unsure_bytes(allocated, 1000) for allocated in (1000, 600))
    assert (tight, loose) == (100, 500)
    assert unsure_bytes(1200, 1000) == 100  # within a limit, segments given back may be counted


@pytest.mark.parametrize(
    ("off", "found"), [(0, (0, 0)), (30, (0, 0)), (130, (0.5, 0)), (-80, (0, 0.25))]
)
def test_residuals_are_shares_beyond_the_slack(off: int, found: tuple[float, float]) -> None:
    assert residual(off, 30, 200) == found
