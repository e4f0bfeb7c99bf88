"""The cache never holds more than it may, and lets go of what was used longest ago."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memplan_server.caches import LruCache

CAPACITY = 20


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 25))))
def test_it_holds_what_it_says_and_no_more(puts: list[tuple[str, int]]) -> None:
    cache: LruCache[str, bytes] = LruCache(CAPACITY, lambda _, value: len(value))
    for key, size in puts:
        cache.put(key, bytes(size))
        assert cache.get(key) == (bytes(size) if size <= CAPACITY else None)
        held = [len(value) for k in "abcde" if (value := cache.get(k)) is not None]
        assert cache.held_bytes == sum(held) <= CAPACITY


def test_what_was_used_longest_ago_leaves() -> None:
    cache: LruCache[str, bytes] = LruCache(CAPACITY, lambda _, value: len(value))
    cache.put("a", bytes(10))
    cache.put("b", bytes(10))
    cache.get("a")
    cache.put("c", bytes(10))
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
