"""The search for the largest and the fastest batch size, on made-up GPUs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memplan_server.profiling.search import MOST_RUNS, BatchSearch


def searched(room: int, knee: int, start: int, multiple: int = 1) -> tuple[BatchSearch, list[int]]:
    """On a GPU with room for `room` samples, where batches above `knee` are no faster."""
    search, sizes = BatchSearch(start=start, multiple=multiple), []
    while (size := search.next()) is not None:
        sizes.append(size)
        search.note(size, ran=size <= room, samples_per_second=min(size, knee) * 10.0)
    return search, sizes


@given(
    room=st.integers(1, 5000),
    knee=st.integers(1, 5000),
    off=st.floats(0.8, 1.25),
    multiple=st.sampled_from([1, 8]),
)
def test_few_runs_find_the_largest(room: int, knee: int, off: float, multiple: int) -> None:
    start = max(1, int(room * off))
    search, sizes = searched(room, knee, start, multiple)
    assert len(sizes) == len(set(sizes)) <= MOST_RUNS
    assert all(size >= 1 for size in sizes)
    assert sizes[0] in (start, start - start % multiple)
    assert search.largest <= room
    assert search.largest >= room * 0.9 - multiple
    best = max(search.speeds.values())
    assert search.speeds[search.fastest] == best


def test_a_good_start_needs_three_runs_at_the_limit() -> None:
    search, sizes = searched(room=100, knee=100, start=98)
    assert sizes[:2] == [98, 103]
    assert search.largest >= 98


def test_smaller_batches_are_tried_down_to_the_knee() -> None:
    search, sizes = searched(room=100, knee=30, start=100)
    assert {50, 25} <= set(sizes)
    assert 12 not in sizes
    assert search.fastest == 50  # the smallest of those that are as fast
    assert search.largest == 100


def test_what_does_not_run_at_all_ends() -> None:
    search, sizes = searched(room=0, knee=1, start=3)
    assert sizes[-1] == 1
    assert search.largest == search.fastest == 0


def test_no_batch_is_above_the_limit() -> None:
    search = BatchSearch(start=100, limit=64)
    assert search.next() == 64
    search.note(64, ran=True, samples_per_second=1.0)
    assert search.next() == 32
