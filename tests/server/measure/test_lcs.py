"""The longest common subsequence against the textbook's table."""

from __future__ import annotations

import itertools
import random
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan_server.measure import lcs

TOKENS = st.lists(st.integers(0, 4), max_size=24)


def table_length(first: list[int], second: list[int]) -> int:
    rows = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            longer = max(rows[i][j + 1], rows[i + 1][j])
            rows[i + 1][j + 1] = rows[i][j] + 1 if a == b else longer
    return rows[-1][-1]


@given(first=TOKENS, second=TOKENS)
def test_as_many_pairs_as_there_can_be_in_order(first: list[int], second: list[int]) -> None:
    pairs = lcs.matches(first, second)
    assert len(pairs) == table_length(first, second)
    assert all(first[i] == second[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))


@given(first=TOKENS, second=TOKENS)
def test_cut_in_halves_it_finds_as_many(first: list[int], second: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lcs, "_MOST_BITS", 8)
        pairs = lcs.matches(first, second)
    assert len(pairs) == table_length(first, second)
    assert all(first[i] == second[j] for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))


@pytest.mark.timeout(20)
def test_a_shuffled_sequence_takes_no_longer() -> None:
    shuffled = random.Random(1).sample(range(5000), 5000)
    rising: list[int] = []
    for value in shuffled:
        place = bisect_left(rising, value)
        rising[place : place + 1] = [value]
    assert len(lcs.matches(shuffled, sorted(shuffled))) == len(rising)
