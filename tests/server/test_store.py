"""The store keeps bytes across restarts and never fails for what happens to its file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from memplan_server.store import FILE_NAME, Store

PLENTY = 1 << 20


def test_values_survive_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder", capacity_bytes=PLENTY)
    store.put(["a", "b"], b"1")
    store.put(["b"], b"22")
    store.close()
    store = Store(tmp_path / "new" / "folder", capacity_bytes=PLENTY)
    assert (store.get("a"), store.get("b"), store.get("c")) == (b"1", b"22", None)
    assert store.size_bytes() == 3
    store.close()


def test_a_value_goes_with_its_last_key(tmp_path: Path) -> None:
    store = Store(tmp_path, capacity_bytes=PLENTY)
    store.put(["a", "b"], b"123")
    store.put(["a"], b"4")
    assert store.size_bytes() == 4
    store.put(["b"], b"5")
    assert store.size_bytes() == 2
    store.close()


def test_what_was_used_longest_ago_leaves(tmp_path: Path) -> None:
    store = Store(tmp_path, capacity_bytes=30)
    for key in "abc":
        store.put([key], bytes(10))
    store.get("a")
    store.put(["d"], bytes(10))
    assert [store.get(key) is not None for key in "abcd"] == [True, False, True, True]
    store.put(["huge"], bytes(31))
    assert store.get("huge") is None
    assert store.size_bytes() <= 30
    store.close()


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"SQLite format 3\0" * 100])
def test_a_damaged_file_is_begun_anew(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        store = Store(tmp_path, capacity_bytes=PLENTY)
        store.put(["a"], b"1")
        assert store.get("a") == b"1"
    assert "damaged" in caplog.text
    assert any(path.read_bytes() == damage for path in tmp_path.glob("*.damaged"))
    store.close()


def test_a_file_with_damaged_pages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path, capacity_bytes=PLENTY)
    store.put(["a"], bytes(200_000))
    store.close()
    file = tmp_path / FILE_NAME
    file.write_bytes(file.read_bytes()[:4096] + b"\xff" * (file.stat().st_size - 4096))
    store = Store(tmp_path, capacity_bytes=PLENTY)
    assert store.get("a") is None
    store.put(["a"], b"again")
    assert store.get("a") == b"again"
    assert "damaged" in caplog.text
    store.close()


def test_without_a_directory_it_keeps_things_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file", capacity_bytes=PLENTY)
    store.put(["a"], b"1")
    assert store.get("a") == b"1"
    assert "nothing is kept" in caplog.text
    store.close()


def test_two_share_a_file(tmp_path: Path) -> None:
    one, other = (Store(tmp_path, capacity_bytes=PLENTY) for _ in range(2))
    one.put(["a"], b"1")
    assert other.get("a") == b"1"
    other.put(["a"], b"2")
    assert one.get("a") == b"2"
    one.close()
    other.close()
