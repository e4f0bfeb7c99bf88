"""A comparison as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from memplan_server.measure.comparison import EventComparison, Group, PairGroup
from memplan_server.measure.history import ReplayedHistory

if TYPE_CHECKING:
    from memplan_server.measure.compare import Comparison

__all__ = ["report"]

_MIB = 1 << 20
_MOST_GROUPS = 40


def report(comparison: Comparison) -> str:
    """The comparison for people; sizes in MiB."""
    return "\n".join(_lines(comparison))


def _lines(comparison: Comparison) -> Iterator[str]:
    versions = ", ".join(f"{k} {v}" for k, v in comparison.library_versions.items())
    yield f"measured on {comparison.gpu.name} ({versions})"
    yield f"simulated for {comparison.gpu_type}"
    yield ""
    yield f"{'MiB':24} {'measured':>12} {'simulated':>12} {'difference':>12}"
    for name in ("peak_allocated_bytes", "peak_reserved_bytes"):
        ours, theirs = getattr(comparison.measured, name), getattr(comparison.simulated, name)
        shown = name.removesuffix("_bytes").replace("_", " ")
        yield f"{shown:24} {_mib(ours):>12} {_mib(theirs):>12} {_mib(theirs - ours):>12}"
    yield ""
    yield from _events(comparison.events)
    if comparison.replayed is not None:
        yield from _replayed(comparison.replayed)
    if comparison.changed_by_naming:
        yield ""
        yield (
            f"Operators come from a second run that differs in {comparison.changed_by_naming} "
            "allocations."
        )
    yield from _sentences("Assumptions", comparison.assumptions)
    yield from _sentences("Notes", comparison.notes)


def _events(events: EventComparison) -> Iterator[str]:
    yield (
        f"allocations: {events.measured_allocations} measured, {events.simulated_allocations} "
        f"simulated, {events.matched_allocations} matched"
    )
    yield from _one_sided("Only measured", events.only_measured)
    yield from _one_sided("Only simulated", events.only_simulated)
    yield from _both("Of another size", events.resized)
    yield from _both("Freed at another place", events.freed_elsewhere)
    if not events.differences:
        yield "every allocation and free is the same on both sides"


def _one_sided(title: str, groups: Sequence[Group]) -> Iterator[str]:
    if not groups:
        return
    yield ""
    yield f"{title:46} {'phase':14} {'count':>6} {'MiB':>10} {'at peak':>10}"
    for group in groups[:_MOST_GROUPS]:
        yield (
            f"  {group.operator:44} {group.phase:14} {group.count:>6} "
            f"{_mib(group.block_bytes):>10} {_mib(group.bytes_at_peak):>10}"
        )
    yield from _rest(groups)


def _both(title: str, groups: Sequence[PairGroup]) -> Iterator[str]:
    if not groups:
        return
    yield ""
    yield (
        f"{title:46} {'phase':14} {'count':>6} {'measured':>10} {'simulated':>10} "
        f"{'at peak':>10} {'at peak':>10}"
    )
    for group in groups[:_MOST_GROUPS]:
        yield (
            f"  {group.operator:44} {group.phase:14} {group.count:>6} "
            f"{_mib(group.measured_bytes):>10} {_mib(group.simulated_bytes):>10} "
            f"{_mib(group.measured_bytes_at_peak):>10} {_mib(group.simulated_bytes_at_peak):>10}"
        )
    yield from _rest(groups)


def _rest(groups: Sequence[object]) -> Iterator[str]:
    if len(groups) > _MOST_GROUPS:
        yield f"  and {len(groups) - _MOST_GROUPS} more; --json lists all"


def _replayed(replayed: ReplayedHistory) -> Iterator[str]:
    yield ""
    if replayed.same:
        yield "The measured events, replayed, reserve what was reserved, after every allocation."
        return
    yield (
        f"The measured events, replayed, reserve {_mib(replayed.replayed_peak_reserved_bytes)} MiB "
        f"at most; {_mib(replayed.recorded_peak_reserved_bytes)} MiB were reserved. They part at "
        f"allocation {replayed.first_difference}, and differ after {replayed.differences} of them."
    )


def _sentences(title: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield ""
        yield f"{title}:"
        yield from (f"  {sentence}" for sentence in sentences)


def _mib(size: int) -> str:
    return f"{size / _MIB:,.2f}"
