"""A caller's patience."""

from __future__ import annotations

import pytest

from memplan_server.calls import Call


@pytest.mark.parametrize(("passed_s", "left"), [(0.0, True), (24.0, True), (26.0, False)])
def test_most_of_the_time_is_three_quarters(
    passed_s: float, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    call = Call(timeout_s=100.0)
    now += passed_s
    assert call.has_most_left() is left


def test_without_a_deadline_there_is_always_time() -> None:
    assert Call().has_most_left()
