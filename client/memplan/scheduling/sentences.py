"""Plans in sentences for people who submit jobs."""

from __future__ import annotations

from collections.abc import Container, Sequence

from memplan.types import Placement

__all__ = ["one_line", "remedies"]

_MOST_REMEDIES = 3


def remedies(placements: Sequence[Placement], here: Container[str] | None = None) -> list[str]:
    """What would help; with `here` no GPU types but those."""
    texts = [
        remedy.description
        for placement in placements
        for remedy in placement.remedies
        if here is None or not remedy.gpu_type or remedy.gpu_type in here
    ]
    return [f"It {text}." for text in dict.fromkeys(texts)][:_MOST_REMEDIES]


def one_line(text: str, most: int) -> str:
    """At most so many signs, with none that a terminal would follow."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    short = " ".join(printable.split())
    return short if len(short) <= most else short[: most - 3] + "..."
