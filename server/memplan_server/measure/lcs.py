"""Longest common subsequence of two sequences, in bounded time and memory.

    pairs = matches(["a", "b", "c"], ["b", "x", "c"])       # [(1, 0), (2, 2)]

Rows of the dynamic programme are bits of one Python integer each (Hyyrö, "Bit-parallel LCS-length
computation revisited", 2004), so two sequences of n and m take n integer operations on m bits: for
10,000 each some tenths of a second, whatever they hold. `difflib` and Myers' algorithm take the
square of the length where sequences differ much, which is when a comparison is wanted.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

__all__ = ["matches"]

_MOST_BITS = 1 << 30
"""Bits of rows kept at once: 128 MiB. Longer pairs are cut in two first."""


def matches(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Pairs of indices (i, j), both rising, with first[i] == second[j]; as many as there can be."""
    head = 0
    while head < len(first) and head < len(second) and first[head] == second[head]:
        head += 1
    tail = 0
    most = min(len(first), len(second)) - head
    while tail < most and first[-1 - tail] == second[-1 - tail]:
        tail += 1
    inner = _inner(first[head : len(first) - tail], second[head : len(second) - tail])
    return [
        *((i, i) for i in range(head)),
        *((head + i, head + j) for i, j in inner),
        *((len(first) - t, len(second) - t) for t in range(tail, 0, -1)),
    ]


def _inner(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[tuple[int, int]]:
    if not first or not second:
        return []
    if len(first) * len(second) > _MOST_BITS and len(first) > 1:
        return _in_halves(first, second)
    return _traced(_rows(first, second), first, second)


def _places(second: Sequence[Hashable]) -> dict[Hashable, int]:
    places: dict[Hashable, int] = {}
    for j, token in enumerate(second):
        places[token] = places.get(token, 0) | 1 << j
    return places


def _rows(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[int]:
    """Row i: bit j is 0 where LCS(first[:i], second[:j + 1]) exceeds LCS(first[:i], second[:j])."""
    places, mask = _places(second), (1 << len(second)) - 1
    row, rows = mask, [mask]
    for token in first:
        matched = row & places.get(token, 0)
        row = (row + matched | row - matched) & mask
        rows.append(row)
    return rows


def _traced(
    rows: list[int], first: Sequence[Hashable], second: Sequence[Hashable]
) -> list[tuple[int, int]]:
    pairs = []
    i, j = len(first), len(second)
    while i and j:
        bit = 1 << j - 1
        if rows[i] & bit:  # the last of `second` adds nothing
            j -= 1
        elif not rows[i - 1] & bit:  # it adds as much without the last of `first`
            i -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def _in_halves(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Hirschberg: the middle of `first` meets `second` where the two halves' lengths sum best."""
    middle = len(first) // 2
    ahead = _lengths(first[:middle], second)
    behind = _lengths(first[middle:][::-1], second[::-1])[::-1]
    cut = max(range(len(second) + 1), key=lambda j: ahead[j] + behind[j])
    left = matches(first[:middle], second[:cut])
    right = matches(first[middle:], second[cut:])
    return [*left, *((middle + i, cut + j) for i, j in right)]


def _lengths(first: Sequence[Hashable], second: Sequence[Hashable]) -> list[int]:
    """LCS length of `first` and each beginning of `second`."""
    places, mask = _places(second), (1 << len(second)) - 1
    row = mask
    for token in first:
        matched = row & places.get(token, 0)
        row = (row + matched | row - matched) & mask
    lengths, total = [0], 0
    bits = bin(row | 1 << len(second))[3:][::-1]
    for bit in bits:
        total += bit == "0"
        lengths.append(total)
    return lengths
