"""From outcomes to figures: errors, their quantiles, bounds, fits.

An error is predicted / measured - 1. The quantile p of n sizes is the smallest that at least
p x n of them do not exceed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from measured import TIMM_A100, Row
from reporting.predictions import Outcome, Prediction

__all__ = [
    "ALLOCATED",
    "DRIVER_USED",
    "RESERVED",
    "Bounds",
    "Fits",
    "Scored",
    "Summary",
    "best_constant",
    "bounds",
    "fits",
    "most_right",
    "quantile",
    "scored",
    "summary",
    "with_constants",
]

ALLOCATED, RESERVED, DRIVER_USED = (
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "driver_used_bytes",
)
"""Quantities, by their names in `Row` and `Prediction`."""

LARGEST_PARAMETERS = 300_000_000
"""Larger models of the A100 table are left out, as its description says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A measurement with its prediction."""

    row: Row
    prediction: Prediction
    shift_bytes: int = 0
    """Added to driver-used bytes and their bounds: what a table's own constant is above the GPU
    type's."""

    def measured(self, quantity: str) -> int | None:
        """Bytes, or None where it was not measured."""
        value: int | None = getattr(self.row, quantity)
        return value

    def predicted(self, quantity: str) -> int:
        """Bytes."""
        value: int = getattr(self.prediction, quantity)
        return value + (self.shift_bytes if quantity == DRIVER_USED else 0)

    def error(self, quantity: str = DRIVER_USED) -> float:
        """Predicted / measured - 1 of a quantity that was measured."""
        measured = self.measured(quantity)
        assert measured
        return self.predicted(quantity) / measured - 1

    @property
    def lower_bytes(self) -> int:
        """Lower bound of driver-used bytes."""
        return self.prediction.lower_bound_bytes + self.prediction.beside_bytes + self.shift_bytes

    @property
    def upper_bytes(self) -> int:
        """Upper bound of driver-used bytes."""
        return self.prediction.upper_bound_bytes + self.prediction.beside_bytes + self.shift_bytes


def scored(outcomes: Iterable[Outcome]) -> list[Scored]:
    """Those with a prediction, without what `LARGEST_PARAMETERS` leaves out.

    The A100 table gets one constant for all its rows, in place of the context bytes of the GPU
    type: its CUDA stack is old and loads every kernel.
    """
    found = [
        Scored(row=o.row, prediction=o.prediction)
        for o in outcomes
        if o.prediction is not None and not _left_out(o.row, o.prediction)
    ]
    a100 = [s for s in found if s.row.table == TIMM_A100]
    if not a100:
        return found
    shift = best_constant(
        [s.predicted(DRIVER_USED) for s in a100], [_measured(s, DRIVER_USED) for s in a100]
    )
    return [
        Scored(row=s.row, prediction=s.prediction, shift_bytes=shift)
        if s.row.table == TIMM_A100
        else s
        for s in found
    ]


def _left_out(row: Row, prediction: Prediction) -> bool:
    return row.table == TIMM_A100 and prediction.parameter_count > LARGEST_PARAMETERS


def _measured(item: Scored, quantity: str) -> int:
    value = item.measured(quantity)
    assert value is not None
    return value


def best_constant(predicted: Sequence[int], measured: Sequence[int]) -> int:
    """What to add to each prediction so that the mean size of the errors is the smallest.

    That is the median of the differences, each weighted with 1 / measured.
    """
    differences = sorted((m - p, 1 / m) for p, m in zip(predicted, measured, strict=True))
    half = sum(weight for _, weight in differences) / 2
    passed = 0.0
    for difference, weight in differences:
        passed += weight
        if passed >= half:
            return difference
    return 0


def with_constants(
    items: Sequence[Scored], predicted: Callable[[Scored], int], quantity: str = DRIVER_USED
) -> list[float]:
    """Errors of a predictor with the best constant of each GPU type, in the order of the items."""
    constant = {}
    for gpu_type in {s.row.gpu_type for s in items}:
        some = [s for s in items if s.row.gpu_type == gpu_type]
        constant[gpu_type] = best_constant(
            [predicted(s) for s in some], [_measured(s, quantity) for s in some]
        )
    return [(predicted(s) + constant[s.row.gpu_type]) / _measured(s, quantity) - 1 for s in items]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Errors of many rows; all but `bias` and `under` of their sizes."""

    count: int
    median: float
    mean: float
    p90: float
    p95: float
    worst: float
    bias: float
    """Median of the errors with their signs."""
    under: float
    """Share of rows that are predicted too low."""


def summary(errors: Sequence[float]) -> Summary:
    """At least one error."""
    sizes = sorted(abs(e) for e in errors)
    return Summary(
        count=len(sizes),
        median=statistics.median(sizes),
        mean=statistics.mean(sizes),
        p90=quantile(sizes, 0.90),
        p95=quantile(sizes, 0.95),
        worst=sizes[-1],
        bias=statistics.median(errors),
        under=sum(e < 0 for e in errors) / len(errors),
    )


def quantile(ascending: Sequence[float], share: float) -> float:
    """The smallest of the numbers that at least this share of them do not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending) - 1e-9) - 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """How the bounds of driver-used bytes did."""

    count: int
    above_upper: int
    """Measurements above the upper bound."""
    below_lower: int
    height: float
    """Median of upper bound / measured - 1."""


def bounds(items: Sequence[Scored]) -> Bounds:
    """At least one item, all with driver-used bytes."""
    pairs = [(s, _measured(s, DRIVER_USED)) for s in items]
    return Bounds(
        count=len(items),
        above_upper=sum(m > s.upper_bytes for s, m in pairs),
        below_lower=sum(m < s.lower_bytes for s, m in pairs),
        height=statistics.median(s.upper_bytes / m - 1 for s, m in pairs),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Fits:
    """Answers about rows of which it is known whether they ran."""

    ran: int
    ran_right: int
    """Said to fit, and ran."""
    failed: int
    failed_right: int
    """Said not to fit, and ran out of memory."""

    @property
    def count(self) -> int:
        """Rows."""
        return self.ran + self.failed

    @property
    def right(self) -> float:
        """Share of right answers."""
        return (self.ran_right + self.failed_right) / self.count


def fits(items: Sequence[Scored], said: Callable[[Scored], bool]) -> Fits:
    """At least one item; `said` is whether it was predicted to fit."""
    ran, failed = ([s for s in items if s.row.ran is kind] for kind in (True, False))
    return Fits(
        ran=len(ran),
        ran_right=sum(said(s) for s in ran),
        failed=len(failed),
        failed_right=sum(not said(s) for s in failed),
    )


def most_right(items: Sequence[Scored], needs: Callable[[Scored], int]) -> Fits:
    """Answers of a predictor of bytes with the limit that gives the most right ones."""
    limits = sorted({needs(s) for s in items} | {-1})
    return max((fits(items, _within(needs, limit)) for limit in limits), key=lambda f: f.right)


def _within(needs: Callable[[Scored], int], limit: int) -> Callable[[Scored], bool]:
    return lambda item: needs(item) <= limit
