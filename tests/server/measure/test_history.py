"""Histories in the format of `torch.cuda.memory._snapshot`, read and replayed."""

from __future__ import annotations

from typing import Any

import pytest

from memplan.types import AllocatorSettings
from memplan_server.measure import history
from memplan_server.measure.history import read_snapshot, replay_history

MIB = 1 << 20


def entry(action: str, addr: int, size: int, **more: Any) -> dict[str, Any]:
    fields = {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": 1, "frames": []}
    return {**fields, "compile_context": "N/A", "user_metadata": "", **more}


def freed(addr: int, size: int) -> list[dict[str, Any]]:
    return [entry("free_requested", addr, size), entry("free_completed", addr, size)]


def snapshot(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"segments": [], "device_traces": [list(entries)], "allocator_settings": {}}


SMALL, LARGE, OWN = 0x7F0000000000, 0x7F1000000000, 0x7F2000000000
RECORDED = snapshot(
    entry("segment_alloc", SMALL, 2 * MIB),
    entry("alloc", SMALL, 1000),
    entry("segment_alloc", LARGE, 20 * MIB),
    entry("alloc", LARGE, 3 * MIB),
    entry("alloc", LARGE + 3 * MIB, 4 * MIB + 1),
    *freed(LARGE, 3 * MIB),
    entry("segment_alloc", OWN, 14 * MIB),
    entry("alloc", OWN, 14 * MIB),
    entry("alloc", LARGE, 2 * MIB),
    *freed(OWN, 14 * MIB),
    entry("alloc", OWN, 13 * MIB),
    *freed(SMALL, 1000),
    entry("snapshot", 0, 0),
)


def test_events_in_order_with_the_sizes_asked_for() -> None:
    read = read_snapshot(RECORDED)
    assert read.events == [0, 1, 2, ~1, 3, 4, ~3, 5, ~0]
    assert read.sizes == [1000, 3 * MIB, 4 * MIB + 1, 14 * MIB, 2 * MIB, 13 * MIB]
    assert read.reserved == [2 * MIB, 22 * MIB, 22 * MIB, 36 * MIB, 36 * MIB, 36 * MIB]
    assert read.peak_reserved_bytes == 36 * MIB
    assert read.out_of_memory_bytes is None


def test_replaying_gives_the_recorded_reserved_bytes() -> None:
    replayed = replay_history(read_snapshot(RECORDED))
    assert replayed.same
    assert replayed.replayed_peak_reserved_bytes == replayed.recorded_peak_reserved_bytes


def test_a_segment_that_our_rules_would_not_take_is_found() -> None:
    entries = list(RECORDED["device_traces"][0])
    entries.insert(8, entry("segment_alloc", 0x7F3000000000, 20 * MIB))
    replayed = replay_history(read_snapshot(snapshot(*entries)))
    assert not replayed.same
    assert replayed.first_difference == 3
    assert replayed.differences == 3


def test_memory_that_another_stream_holds_is_usable_later() -> None:
    read = read_snapshot(
        snapshot(
            entry("segment_alloc", LARGE, 20 * MIB),
            entry("alloc", LARGE, 12 * MIB),
            entry("free_requested", LARGE, 12 * MIB),
            entry("segment_alloc", OWN, 12 * MIB),
            entry("alloc", OWN, 12 * MIB, stream=7),
            entry("free_completed", LARGE, 12 * MIB),
        )
    )
    assert read.events == [0, ~0, 1]
    assert read.usable == [0, 1, ~0]
    assert read.streams == 2


def test_expandable_segments_are_mapped_piece_by_piece() -> None:
    read = read_snapshot(
        snapshot(
            entry("segment_map", LARGE, 20 * MIB),
            entry("alloc", LARGE, 15 * MIB),
            entry("segment_map", LARGE + 20 * MIB, 20 * MIB),
            entry("alloc", LARGE + 15 * MIB, 20 * MIB),
        )
    )
    assert replay_history(read, AllocatorSettings(expandable_segments=True)).same
    assert not replay_history(read).same


def test_segments_given_back_near_the_limit() -> None:
    read = read_snapshot(
        snapshot(
            entry("segment_alloc", LARGE, 12 * MIB),
            entry("alloc", LARGE, 12 * MIB),
            *freed(LARGE, 12 * MIB),
            entry("segment_free", LARGE, 12 * MIB),
            entry("segment_alloc", OWN, 14 * MIB),
            entry("alloc", OWN, 14 * MIB),
            entry("oom", 1 << 20, 30 * MIB, device_free=1 << 20),
        )
    )
    assert read.out_of_memory_bytes == 30 * MIB
    assert read.peak_reserved_bytes == 14 * MIB
    assert not replay_history(read).same
    assert replay_history(read, capacity_bytes=20 * MIB).same


def test_a_cache_that_the_program_emptied() -> None:
    read = read_snapshot(
        snapshot(
            entry("segment_alloc", LARGE, 12 * MIB),
            entry("alloc", LARGE, 12 * MIB),
            *freed(LARGE, 12 * MIB),
            entry("segment_free", LARGE, 12 * MIB),
            entry("segment_alloc", OWN, 12 * MIB),
            entry("alloc", OWN, 12 * MIB),
            entry("segment_alloc", LARGE, 14 * MIB),
            entry("alloc", LARGE, 14 * MIB),
        )
    )
    assert read.given_back == (2,)
    assert replay_history(read, empties_cache=True).same
    assert replay_history(read, empties_cache=True).replayed_peak_reserved_bytes == 26 * MIB
    assert replay_history(read).first_difference is None  # the same segment is taken again


def test_a_history_that_began_too_late_is_refused() -> None:
    with pytest.raises(ValueError, match="before the first allocation"):
        read_snapshot(snapshot(*freed(LARGE, 512)))


def test_a_history_cut_short_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_ENTRIES", 5)
    with pytest.raises(ValueError, match="run fewer steps"):
        read_snapshot(RECORDED)
