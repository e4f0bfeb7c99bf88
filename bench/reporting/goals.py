"""What the estimates are to reach, and whether they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from measured import BRACKETS, CORPUS, MILABENCH, TIMM_A100
from reporting.markdown import percent
from reporting.scores import (
    ALLOCATED,
    DRIVER_USED,
    RESERVED,
    Scored,
    Summary,
    bounds,
    fits,
    summary,
)
from reporting.spoiled import sound

__all__ = ["NOT_JUDGED", "Goal", "goals"]

NOT_JUDGED = "not judged: no measurements"


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """One line of the table."""

    measure: str
    to_reach: str
    found: str
    reached: bool | None
    """None where there is nothing to judge by."""

    @property
    def verdict(self) -> str:
        """In words."""
        return NOT_JUDGED if self.reached is None else "reached" if self.reached else "not reached"


def goals(items: Sequence[Scored]) -> list[Goal]:
    """Every goal, in the order of the page."""
    own = _of(items, CORPUS)
    plain = [s for s in own if "convolution" not in s.prediction.traits]
    milabench = _of(items, MILABENCH)
    bert = [s for s in milabench if s.row.model.startswith("bert")]
    return [
        _errors("peak allocated, own corpus", own, ALLOCATED, median=0.001, p95=0.01),
        _errors("peak reserved, own corpus", own, RESERVED, median=0.005, p95=0.03),
        _errors("peak reserved, own corpus without convolutions", plain, RESERVED, p95=0.005),
        _errors("driver-used, own corpus", own, DRIVER_USED, median=0.01, p95=0.04),
        _errors("driver-used, milabench BERT", bert, DRIVER_USED, p90=0.01),
        _errors("driver-used, milabench, all", milabench, DRIVER_USED, p90=0.04),
        _errors(
            "driver-used, timm on A100, one constant for the table",
            _of(items, TIMM_A100),
            DRIVER_USED,
            median=0.025,
            p90=0.10,
        ),
        _brackets(_of(items, BRACKETS)),
        *_upper_bound([s for s in items if s.row.driver_used_bytes is not None]),
    ]


def _of(items: Sequence[Scored], table: str) -> list[Scored]:
    return [s for s in items if s.row.table == table]


def _errors(measure: str, items: Sequence[Scored], quantity: str, **limits: float) -> Goal:
    errors = [s.error(quantity) for s in items if s.measured(quantity) is not None]
    to_reach = ", ".join(f"{name} <= {percent(limit)}" for name, limit in limits.items())
    if not errors:
        return Goal(measure=measure, to_reach=to_reach, found="", reached=None)
    found = summary(errors)
    values = {name: _value(found, name) for name in limits}
    return Goal(
        measure=measure,
        to_reach=to_reach,
        found=", ".join(f"{name} {percent(value)}" for name, value in values.items()),
        reached=all(values[name] <= limit for name, limit in limits.items()),
    )


def _value(found: Summary, name: str) -> float:
    value: float = getattr(found, name)
    return value


def _brackets(items: Sequence[Scored]) -> Goal:
    return _judged(
        "fits or not, timm on RTX 3090",
        "right >= 90 %",
        items,
        lambda some: fits(some, lambda s: s.prediction.fits).right,
        lambda right: right >= 0.90,
        "right",
    )


def _upper_bound(items: Sequence[Scored]) -> list[Goal]:
    judged = {"": items, ", spoiled ones left out": sound(items)}
    above = [
        _judged(
            f"upper bound, all tables: rows above it{which}",
            "<= 1 %",
            some,
            lambda some: bounds(some).above_upper / len(some),
            lambda share: share <= 0.01,
            "",
        )
        for which, some in judged.items()
    ]
    return [
        *above,
        _judged(
            "upper bound, all tables: height over the measurement",
            "median <= 5 %",
            items,
            lambda some: bounds(some).height,
            lambda height: height <= 0.05,
            "median",
        ),
    ]


def _judged(
    measure: str,
    to_reach: str,
    items: Sequence[Scored],
    figure: Callable[[Sequence[Scored]], float],
    reached: Callable[[float], bool],
    word: str,
) -> Goal:
    if not items:
        return Goal(measure=measure, to_reach=to_reach, found="", reached=None)
    value = figure(items)
    return Goal(
        measure=measure,
        to_reach=to_reach,
        found=f"{word} {percent(value)}".strip(),
        reached=reached(value),
    )
