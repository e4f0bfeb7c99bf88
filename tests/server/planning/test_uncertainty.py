"""Bounds: which family a job is of, and that margins mean what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timelines import network

from memplan.types import GpuType
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.planning import uncertainty
from memplan_server.planning.uncertainty import FAMILIES, Margin
from memplan_server.timeline import Convolution, Timeline

CATALOG = GpuCatalog.load()
A100, L40S, V100 = (
    CATALOG.get(name) for name in ("nvidia-a100-40gb", "nvidia-l40s", "nvidia-v100-16gb")
)
STEM = Convolution(
    direction="wgrad",
    dtype="float32",
    itemsize=4,
    channels_last=False,
    groups=1,
    image=(3, 224, 224),
    kernel=(64, 3, 7, 7),
    result=(64, 112, 112),
    stride=(2, 2),
    dilation=(1, 1),
)
BLOCK = replace(STEM, image=(64, 56, 56), kernel=(64, 64, 3, 3), stride=(1, 1))
PATCHES = replace(STEM, kernel=(768, 3, 16, 16), stride=(16, 16))
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
        (timeline(STEM, BLOCK), V100, "unmeasured"),
        (
            timeline(*(replace(c, channels_last=True) for c in (STEM, BLOCK))),
            A100,
            "channels_last_convolution",
        ),
        (timeline(traits=("attention", "unfused_attention")), A100, "unfused_attention"),
        (timeline(traits=("recurrent",)), A100, "unmeasured"),
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
    for made in (timeline(), timeline(STEM, BLOCK), timeline(traits=("unfused_attention",))):
        measured = uncertainty.margin(made, L40S)
        assert unmeasured.above > 1.5 * measured.above
        assert unmeasured.below > 1.5 * measured.below


def test_an_estimated_context_widens_both_bounds() -> None:
    guessed = replace(L40S, sources={"context_bytes": "estimate by SM count"})
    known, unsure = (uncertainty.bounds(timeline(), g, 10 << 30) for g in (L40S, guessed))
    assert unsure.upper_bytes - known.upper_bytes == guessed.context_bytes // 2
    assert known.lower_bytes - unsure.lower_bytes == guessed.context_bytes // 2


@given(
    above=st.floats(0, 2),
    below=st.floats(0, 2),
    slack=st.integers(0, 1 << 30),
    capacity=st.integers(1 << 31, 1 << 38),
    context=st.integers(0, 1 << 30),
)
def test_the_largest_safe_reserve_is_the_largest(
    above: float, below: float, slack: int, capacity: int, context: int
) -> None:
    margin = Margin(above, below, slack)
    safe = margin.safe_reserved_bytes(capacity, context)
    if safe > 0:
        assert margin.bounds(safe, context).upper_bytes <= capacity
    assert margin.bounds(max(0, safe) + 1024, context).upper_bytes >= capacity
    limits = margin.bounds(max(0, safe), context)
    assert limits.lower_bytes <= max(0, safe) + context <= limits.upper_bytes
