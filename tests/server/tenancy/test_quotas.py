"""Quotas hold: in whatever order calls come and go, and from many threads at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.types import ProfileMemoryResponse, ProfileProgress, ProfileStage, TrainingJob
from memplan_server.calls import Call
from memplan_server.errors import NotAllowed, QuotaExceeded
from memplan_server.metrics import Metrics
from memplan_server.profiling import Asked
from memplan_server.tenancy import MeteredProfiler, Quotas, Tenant, Tenants

METRICS = Metrics()


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quotas(clock: Clock) -> Quotas:
    return Quotas(METRICS, clock)


def refused(quotas: Quotas, tenant: Tenant) -> QuotaExceeded | None:
    """What a request is refused with that ends at once."""
    try:
        with quotas.request(tenant):
            return None
    except QuotaExceeded as refusal:
        return refusal


def most_within(times: list[float], window_s: float) -> int:
    """The most of them in any window, its end left out."""
    return max((sum(t <= u < t + window_s for u in times) for t in times), default=0)


@given(
    limit=st.integers(1, 5),
    pauses=st.lists(st.sampled_from([0.0, 0.1, 5.0, 20.0, 59.9, 60.0, 61.0]), max_size=60),
)
def test_no_minute_has_more_requests_than_the_limit(limit: int, pauses: list[float]) -> None:
    clock = Clock()
    quotas = Quotas(METRICS, clock)
    tenant = Tenant(name="a", requests_per_minute=limit)
    admitted: list[float] = []
    for pause in pauses:
        clock.now += pause
        refusal = refused(quotas, tenant)
        if refusal is None:
            admitted.append(clock.now)
            continue
        assert refusal.quota == "requests_per_minute"
        # no sooner, and then for sure
        assert sum(t > clock.now - 60 for t in admitted) == limit
        again = clock.now + (refusal.retry_after_s or 0)
        assert sum(t > again - 60 + 1e-6 for t in admitted) < limit
    assert most_within(admitted, 60) <= limit


@given(limit=st.integers(1, 4), steps=st.lists(st.integers(-5, 5), max_size=60))
def test_no_more_are_in_flight_than_the_limit(limit: int, steps: list[int]) -> None:
    quotas = Quotas(METRICS, Clock())
    tenant = Tenant(name="a", concurrent_requests=limit)
    open_calls: list[ExitStack] = []
    for step in steps:
        if step < 0 and open_calls:
            open_calls.pop(step % len(open_calls)).close()
            continue
        with suppress(QuotaExceeded), ExitStack() as stack:
            stack.enter_context(quotas.request(tenant))
            open_calls.append(stack.pop_all())
            assert len(open_calls) <= limit
            continue
        assert len(open_calls) == limit


def test_threads_do_not_get_past_it(clock: Clock, quotas: Quotas) -> None:
    tenant = Tenant(name="a", requests_per_minute=300, concurrent_requests=3)
    lock, gate = threading.Lock(), threading.Barrier(8)
    in_flight = highest = admitted = refused = 0

    def ask() -> None:
        nonlocal in_flight, highest, admitted, refused
        gate.wait()
        for _ in range(200):
            try:
                with quotas.request(tenant):
                    with lock:
                        in_flight += 1
                        admitted += 1
                        highest = max(highest, in_flight)
                    with lock:
                        in_flight -= 1
            except QuotaExceeded:
                with lock:
                    refused += 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert highest <= 3
    assert admitted == 300
    assert admitted + refused == 8 * 200


def test_tenants_do_not_share(quotas: Quotas) -> None:
    a, b = (Tenant(name=name, requests_per_minute=1) for name in "ab")
    for tenant in (a, b):
        with quotas.request(tenant):
            pass
        with pytest.raises(QuotaExceeded, match=f"^{tenant.name} "), quotas.request(tenant):
            pass


def test_a_lowered_limit_holds_at_once(clock: Clock, quotas: Quotas) -> None:
    for now in range(10):
        clock.now = now
        with quotas.request(Tenant(name="a", requests_per_minute=10)):
            pass
    lowered = Tenant(name="a", requests_per_minute=4)
    with pytest.raises(QuotaExceeded) as raised, quotas.request(lowered):
        pass
    assert raised.value.retry_after_s == pytest.approx(6 + 60 - 9)
    clock.now += raised.value.retry_after_s
    with quotas.request(lowered):
        pass


@given(
    limit=st.integers(1, 100),
    steps=st.lists(
        st.tuples(st.integers(1, 60), st.integers(0, 90), st.sampled_from([0, 60, 3500, 3600])),
        max_size=30,
    ),
)
def test_no_hour_has_more_measuring_than_the_limit(
    limit: int, steps: list[tuple[int, int, int]]
) -> None:
    clock = Clock()
    quotas = Quotas(METRICS, clock)
    tenant = Tenant(name="a", measuring_seconds_per_hour=limit)
    ended: list[tuple[float, float]] = []
    for most_s, took_s, pause_s in steps:
        clock.now += pause_s
        with suppress(QuotaExceeded), quotas.measuring(tenant, most_s) as meter:
            clock.now += 5  # in the queue
            meter.start()
            clock.now += took_s
            ended.append((clock.now, min(took_s, most_s)))
    for end, _ in ended:
        assert sum(s for at, s in ended if end <= at < end + 3600) <= limit


def test_what_is_under_way_is_reserved_and_the_rest_given_back(
    clock: Clock, quotas: Quotas
) -> None:
    tenant = Tenant(name="a", measuring_seconds_per_hour=100)
    with quotas.measuring(tenant, 60) as meter:
        meter.start()
        clock.now += 10
        with pytest.raises(QuotaExceeded, match="40 s are left"), quotas.measuring(tenant, 50):
            pass
    with quotas.measuring(tenant, 90):
        pass  # it never ran
    with pytest.raises(QuotaExceeded) as raised, quotas.measuring(tenant, 91):
        pass
    assert raised.value.retry_after_s == 3600
    with pytest.raises(QuotaExceeded) as never, quotas.measuring(tenant, 101):
        pass
    assert never.value.retry_after_s is None
    clock.now += 3600
    with quotas.measuring(tenant, 100):
        pass


def test_a_tenant_without_measuring(quotas: Quotas) -> None:
    tenant = Tenant(name="a", measuring_seconds_per_hour=0)
    with pytest.raises(NotAllowed, match="without measuring"), quotas.measuring(tenant, 1):
        pass


class Fake:
    """A profiler that waits for a minute and runs for two seconds."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def profile(self, asked: Asked, call: Call) -> Iterator[ProfileMemoryResponse]:
        for stage in (ProfileStage.QUEUED, ProfileStage.BUILDING):
            yield ProfileMemoryResponse(progress=ProfileProgress(stage=stage))
            self.clock.now += 60 if stage is ProfileStage.QUEUED else 2


def test_waiting_for_a_device_costs_nothing(clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "tenants.toml"
    file.write_text("[a]\nmeasuring_seconds_per_hour = 62")
    metrics = Metrics()
    profiler = MeteredProfiler(Fake(clock), Tenants(file), Quotas(metrics, clock))
    asked = Asked(job=TrainingJob(), peer="a", time_limit_s=60)
    for _ in range(2):
        assert len(list(profiler.profile(asked, Call()))) == 2
    sample = {"tenant": "a"}
    counted = metrics.registry.get_sample_value("memplan_tenant_measuring_seconds_total", sample)
    assert counted == 4
    with pytest.raises(QuotaExceeded):
        list(profiler.profile(asked, Call()))
    file.write_text("[b]")
    with pytest.raises(NotAllowed, match="no tenant"):
        list(profiler.profile(asked, Call()))
