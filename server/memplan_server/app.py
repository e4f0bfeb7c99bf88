"""Wiring: from settings to a server that runs.

    server = serve(Settings(listen="127.0.0.1:0"))
    server.port                 # what the system gave
    server.stop(grace=30)       # no new calls; those under way may finish

Nothing is decided here: each part gets what it needs of the settings and of the other parts.

Known limitation: a call holds a thread from its first byte on, so a peer that opens many calls and
never sends their requests can use all threads up. Where peers are not trusted, ask for client
certificates or put a proxy in front.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from memplan_server.access import Access, AccessInterceptor
from memplan_server.core import Planner
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.interceptors import (
    ErrorInterceptor,
    ObservingInterceptor,
    StreamInterceptor,
)
from memplan_server.knowledge import Knowledge
from memplan_server.metrics import Metrics
from memplan_server.names import ModelNames
from memplan_server.profiles.setup import make_profile_store
from memplan_server.profiling import Profiler
from memplan_server.profiling.local import MEASURE
from memplan_server.profiling.setup import make_profiler
from memplan_server.profiling.stored import StoringProfiler
from memplan_server.service import SERVICE_NAME, PlannerService
from memplan_server.settings import Settings
from memplan_server.store import Store
from memplan_server.tenancy import Quotas, Tenants
from memplan_server.timelines import TimelineCache, estimation_version
from memplan_server.tls import server_credentials
from memplan_server.workers import TASKS_MODULE, Workers

__all__ = ["RunningServer", "serve"]

log = logging.getLogger(__name__)

SPARE_THREADS = 16
"""Threads beyond the calls that may be worked on at once: for kept answers, health, refusals."""
STREAM_THREADS = 4
PROFILES_THAT_RUN = 16
"""Beside those that wait: one for each device, and those that other servers have."""
CALLS_A_THREAD = 8
"""Calls that may wait for a thread, for each thread; gRPC itself refuses more."""
KEEPALIVE_MS = 60_000
LEAST_PING_MS = 5_000
"""Half of what clients keep to, whose clocks are not this one's."""
CONNECTION_AGE_MS = 30 * 60_000
LARGEST_RESPONSE = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningServer:
    """A server that answers calls until it is stopped."""

    port: int
    """The port it serves on."""
    metrics_port: int | None
    """The port of its metrics, where it has them."""
    _stop: Callable[[float, float], None]

    def stop(self, grace: float = 0.0, *, delay: float = 0.0) -> None:
        """Report that it stops, go on for `delay` seconds, then take no new calls, let those under
        way finish for `grace` seconds, and end everything."""
        self._stop(grace, delay)


def serve(
    settings: Settings, *, tasks_module: str = TASKS_MODULE, measure: str = MEASURE
) -> RunningServer:
    """Start a server. `tasks_module` is what its workers run, `measure` what measures a job.

    Raises OSError when an address is taken or a file cannot be read, and ValueError for files that
    hold something else.
    """
    with ExitStack() as stack:
        metrics = Metrics(node=settings.node_name)
        access = _access(settings, metrics)
        service = _service(settings, metrics, access, tasks_module, measure, stack)
        server, healthy = _grpc_server(settings, metrics, access, service)
        port = _bind(server, settings)
        metrics_port = _serve_metrics(settings, metrics, stack)
        server.start()
        for name in ("", SERVICE_NAME):
            healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("serving on port %d, metrics on %s", port, metrics_port or "no port")
        rest = stack.pop_all()

    def stop(grace: float, delay: float) -> None:
        healthy.enter_graceful_shutdown()
        time.sleep(delay)
        server.stop(grace).wait()
        rest.close()
        log.info("stopped")

    return RunningServer(port=port, metrics_port=metrics_port, _stop=stop)


def _access(settings: Settings, metrics: Metrics) -> Access | None:
    """Who may ask; None: anybody."""
    if settings.tenants is None:
        return None
    access = Access(Tenants(settings.tenants), Quotas(metrics))
    if settings.tls_cert is None:
        log.warning("tokens come without TLS: see to it that something in front encrypts")
    return access


def _service(
    settings: Settings,
    metrics: Metrics,
    access: Access | None,
    tasks_module: str,
    measure: str,
    stack: ExitStack,
) -> PlannerService:
    """The service and all it stands on; `stack` gets what has to be closed."""
    store = Store(settings.data_dir, capacity_bytes=settings.store_size)
    stack.callback(store.close)
    workers = Workers(
        settings.workers,
        metrics=metrics,
        time_limit_s=settings.job_time_limit,
        memory_limit_bytes=settings.worker_memory_limit,
        prestart=settings.prestart_workers,
        tasks_module=tasks_module,
    )
    stack.callback(workers.stop)
    timelines = TimelineCache(
        workers=workers, store=store, metrics=metrics, capacity_bytes=settings.timeline_cache_size
    )
    names = ModelNames(workers=workers, store=store)
    profiles = make_profile_store(settings)
    stack.callback(profiles.close)
    metrics.profile_store_up.set_function(lambda: profiles.available)
    catalog = GpuCatalog.load()
    knowledge = Knowledge(catalog, profiles, version=estimation_version())
    stack.callback(knowledge.stop)
    profiler: Profiler = StoringProfiler(
        make_profiler(
            settings,
            metrics,
            catalog=catalog,
            knowledge=knowledge,
            timelines=timelines,
            measure=measure,
            stack=stack,
        ),
        profiles,
    )
    planner = Planner(
        knowledge=knowledge,
        timelines=timelines,
        names=names,
        profiler=profiler if access is None else access.metered(profiler),
        profiles=profiles,
        longest_profile_s=settings.profile_time_limit,
    )
    return PlannerService(
        planner,
        metrics,
        knowledge_version=knowledge.version,
        answer_cache_bytes=settings.answer_cache_size,
        max_concurrent_calls=settings.max_concurrent_calls,
        call_time_limit_s=settings.call_time_limit,
        max_concurrent_profiles=_profiles(settings),
        caller=None if access is None else access.caller,
    )


def _profiles(settings: Settings) -> int:
    """Profiles that may be under way, here or elsewhere, waiting ones included."""
    return settings.profile_queue_length + PROFILES_THAT_RUN


def _grpc_server(
    settings: Settings, metrics: Metrics, access: Access | None, service: PlannerService
) -> tuple[Any, health.HealthServicer]:
    """A grpc.Server with the planner, health and reflection; not started."""
    threads = settings.max_concurrent_calls + _profiles(settings) + SPARE_THREADS
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="memplan-call"),
        interceptors=(
            StreamInterceptor(STREAM_THREADS, _profiles(settings) + SPARE_THREADS),
            ObservingInterceptor(metrics),
            ErrorInterceptor(),
            *([] if access is None else [AccessInterceptor(access)]),
        ),
        maximum_concurrent_rpcs=threads * CALLS_A_THREAD,
        options=(
            ("grpc.max_receive_message_length", settings.max_request_size),
            ("grpc.max_send_message_length", LARGEST_RESPONSE),
            ("grpc.so_reuseport", 0),  # a port that is taken is an error, not shared
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),  # a peer that is gone holds no thread
            # A stream of a profile may be silent for long, and forwarding servers look after it.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", LEAST_PING_MS),
            ("grpc.max_connection_age_ms", CONNECTION_AGE_MS),  # so that clients look for new pods
        ),
    )
    handlers = service.handlers()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
    server.add_registered_method_handlers(SERVICE_NAME, handlers)
    healthy = health.HealthServicer()
    for name in ("", SERVICE_NAME):
        healthy.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return server, healthy


def _bind(server: Any, settings: Settings) -> int:
    """Take the address; returns its port."""
    credentials = server_credentials(settings)
    try:
        if credentials is None:
            return int(server.add_insecure_port(settings.listen))
        return int(server.add_secure_port(settings.listen, credentials))
    except RuntimeError as error:
        why = _why_not_bound(settings.listen) or str(error)
        raise OSError(f"{settings.listen} cannot be served on: {why}") from None


def _why_not_bound(address: str) -> str:
    """What the system says of an address, which gRPC keeps to itself; empty where it takes it."""
    host, _, port = address.rpartition(":")
    try:
        for family, kind, _, _, place in socket.getaddrinfo(host.strip("[]"), int(port)):
            if kind is socket.SOCK_STREAM:
                with socket.socket(family, kind) as tried:
                    tried.bind(place)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def _serve_metrics(settings: Settings, metrics: Metrics, stack: ExitStack) -> int | None:
    """Serve the metrics where they are wanted; returns their port."""
    if settings.metrics_port is None:
        return None
    host = settings.listen.rpartition(":")[0].strip("[]")
    try:
        server, thread = start_http_server(settings.metrics_port, host, metrics.registry)
    except OSError as error:
        where = f"--metrics-port {settings.metrics_port}"
        raise OSError(f"{where} cannot be served on: {error.strerror}") from None
    stack.callback(thread.join)
    stack.callback(server.server_close)
    stack.callback(server.shutdown)
    return int(server.server_port)
