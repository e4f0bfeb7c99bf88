"""The rules that many fields share. Each yields the violations of one value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from memplan_server.errors import Violation

__all__ = ["INT32_MAX", "Violations", "brief", "fraction", "sizes", "text", "unused", "whole"]

Violations = Iterator[Violation]

INT32_MAX = 2**31 - 1


def brief(value: object) -> str:
    """A value as a message shows it: at most 60 characters, on one line."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def whole(at: str, value: int, low: int, high: int, *, unset: bool = False) -> Violations:
    """A whole number from `low` to `high`; 0 for "not given" too where `unset`."""
    if low <= value <= high or (unset and value == 0):
        return
    if value == 0 and low == 1:
        yield Violation(at, f"is required: a whole number from 1 to {high:,}.")
    else:
        yield Violation(at, f"must be {low:,} to {high:,}, not {value}.")


def fraction(at: str, value: float | None, *, high: float, closed: bool = False) -> Violations:
    """A number from 0 to `high`, `high` itself only where `closed`; None for "not given"."""
    if value is None or 0 <= value < high or (closed and value == high):
        return
    bounds = f"from 0 to {high:g}" if closed else f"at least 0 and below {high:g}"
    given = value if math.isfinite(value) else str(value)
    yield Violation(at, f"must be a number {bounds}, not {given}.")


def sizes(
    at: str,
    values: Sequence[int],
    *,
    most: int,
    low: int = 1,
    required: bool = False,
) -> Violations:
    """A list of at most `most` whole numbers from `low` to 2^31 - 1."""
    if required and not values:
        yield Violation(at, "is required.")
    if len(values) > most:
        yield Violation(at, f"has {len(values):,} entries; at most {most} make sense.")
        return
    for index, value in enumerate(values):
        if not low <= value <= INT32_MAX:
            yield Violation(f"{at}[{index}]", f"must be {low} to 2^31 - 1, not {value}.")


def text(at: str, value: str, *, longest: int) -> Violations:
    """Printable text of at most `longest` characters."""
    if len(value) > longest:
        yield Violation(at, f"is {len(value):,} characters long; at most {longest} are allowed.")
    elif not value.isprintable():
        yield Violation(at, f"must be printable text, not {brief(value)}.")


def unused(at: str, given: bool, why: str) -> Violations:
    """A field that has no meaning here and must not be given."""
    if given:
        yield Violation(at, why)
