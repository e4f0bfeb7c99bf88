"""Every metric of the server, in one place.

One `Metrics` a server object, with a registry of its own, so that several servers live in one
process. Names, units and labels follow the Prometheus conventions; labels come from closed sets
(methods, codes, GPU types of the catalog, tenants of the file), never from what a request says.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from memplan_server.inventory import GpuCollector
from memplan_server.recent_jobs import RecentJobs

__all__ = ["ComputedGauge", "Metrics"]

REQUEST_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SIMULATION_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
WORKER_ENDS = ("time_limit", "memory_limit", "cancelled", "died", "start")
PROFILE_OUTCOMES = (
    *("done", "out_of_memory", "cancelled", "time_limit", "refused", "no_device", "unreachable"),
    *("invalid_job", "crashed", "relayed", "failed"),
)
RATIOS = (0.8, 0.9, 0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5)

Values = Mapping[tuple[str, ...], float]


class ComputedGauge(Collector):
    """A gauge all of whose samples are worked out together, at each scrape."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], *, registry: CollectorRegistry
    ) -> None:
        self._described = name, documentation, labels
        self._values: Callable[[], Values] = dict
        registry.register(self)

    def set_function(self, values: Callable[[], Values]) -> None:
        """Where the values come from, by the values of the labels."""
        self._values = values

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The samples of now."""
        name, documentation, labels = self._described
        family = GaugeMetricFamily(name, documentation, labels=labels)
        for of_labels, value in self._values().items():
            family.add_metric(of_labels, value)
        yield family


def _own_version() -> str:
    """As installed; a server may run from its source, on a GPU machine that has no more of it."""
    try:
        return version("memplan")
    except PackageNotFoundError:
        return "source"


class Metrics:
    """The server's metrics and the registry that holds them."""

    def __init__(self, *, node: str = "") -> None:
        """`node` is what schedulers call this machine."""
        self.registry = CollectorRegistry()
        self._of_requests(self.registry)
        self._of_workers(self.registry)
        self._of_profiles(self.registry)
        self._of_tenants(self.registry)
        build = Info(
            "memplan_build",
            "Versions this server was built from, and the machine it is on.",
            registry=self.registry,
        )
        versions = {"version": _own_version(), "python": platform.python_version()}
        build.info({**versions, "node": node})
        self.registry.register(GpuCollector(node))
        self.recent_jobs = RecentJobs()
        self.registry.register(self.recent_jobs)

    def _of_requests(self, registry: CollectorRegistry) -> None:
        """Calls, caches and answers."""
        self.requests = Counter(
            "memplan_requests_total",
            "Calls answered, by method and status code.",
            ["method", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "memplan_request_duration_seconds",
            "Time from a call's first instruction to its answer, by method.",
            ["method"],
            buckets=REQUEST_SECONDS,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "memplan_requests_in_flight",
            "Calls being answered.",
            registry=registry,
        )
        self.cache_requests = Counter(
            "memplan_cache_requests_total",
            "Look-ups, by cache (answer, timeline_memory, timeline_store) and result (hit, miss).",
            ["cache", "result"],
            registry=registry,
        )
        self.cache_bytes = Gauge(
            "memplan_cache_size_bytes",
            "Bytes held, by cache.",
            ["cache"],
            registry=registry,
        )
        self.verdicts = Counter(
            "memplan_verdicts_total",
            "Placements answered, by GPU type and verdict.",
            ["gpu_type", "verdict"],
            registry=registry,
        )

    def _of_workers(self, registry: CollectorRegistry) -> None:
        """Worker processes and what they simulate."""
        self.tasks_queued = Gauge(
            "memplan_worker_tasks_queued",
            "Tasks that wait for a worker.",
            registry=registry,
        )
        self.workers = Gauge(
            "memplan_workers",
            "Worker processes, by state (stopped, starting, idle, busy).",
            ["state"],
            registry=registry,
        )
        self.worker_ends = Counter(
            "memplan_worker_ends_total",
            f"Worker processes that ended before the server, by reason ({', '.join(WORKER_ENDS)}).",
            ["reason"],
            registry=registry,
        )
        _begin(self.worker_ends, WORKER_ENDS)
        self.simulation_seconds = Histogram(
            "memplan_simulation_duration_seconds",
            "Time a worker process spends on one task.",
            buckets=SIMULATION_SECONDS,
            registry=registry,
        )

    def _of_profiles(self, registry: CollectorRegistry) -> None:
        """Jobs that are really run, and how predictions compare."""
        self.profiles = Counter(
            "memplan_profiles_total",
            f"Profiles that ended, by outcome ({', '.join(PROFILE_OUTCOMES)}).",
            ["outcome"],
            registry=registry,
        )
        _begin(self.profiles, PROFILE_OUTCOMES)
        self.profiles_queued = Gauge(
            "memplan_profiles_queued",
            "Profiles that wait for a device of this machine.",
            registry=registry,
        )
        self.profile_devices = ComputedGauge(
            "memplan_profile_devices",
            "Devices of this machine that profiles run on, by state: idle, busy (with a profile), "
            "occupied (by others, or not to be used).",
            ["node", "device_type", "gpu_type", "state"],
            registry=registry,
        )
        self.profile_seconds = Histogram(
            "memplan_profile_duration_seconds",
            "Time from asking for a profile to its end, waiting included.",
            buckets=SIMULATION_SECONDS,
            registry=registry,
        )
        self.profile_store_up = Gauge(
            "memplan_profile_store_up",
            "Whether the database of profiles answers.",
            registry=registry,
        )
        self.prediction_ratio = Histogram(
            "memplan_prediction_ratio",
            "Estimated by measured peak reserved bytes, by GPU type.",
            ["gpu_type"],
            buckets=RATIOS,
            registry=registry,
        )

    def _of_tenants(self, registry: CollectorRegistry) -> None:
        """Those in the file of tenants, and no others."""
        self.tenant_requests = Counter(
            "memplan_tenant_requests_total",
            "Calls let in, by tenant.",
            ["tenant"],
            registry=registry,
        )
        self.tenant_refusals = Counter(
            "memplan_tenant_refusals_total",
            "Calls and measurements refused, by tenant and quota (requests_per_minute, "
            "concurrent_requests, measuring_seconds_per_hour).",
            ["tenant", "quota"],
            registry=registry,
        )
        self.tenant_measuring_seconds = Counter(
            "memplan_tenant_measuring_seconds_total",
            "Time for which jobs were measured, by tenant.",
            ["tenant"],
            registry=registry,
        )


def _begin(counter: Counter, values: Sequence[str]) -> None:
    """Show each value of the label from the start: increase() does not see a sample come."""
    for value in values:
        counter.labels(value)
