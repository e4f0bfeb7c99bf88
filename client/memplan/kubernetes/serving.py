"""HTTP servers in a process that ends on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["add_probes", "metrics_app", "start", "stop_signal"]

DRAIN_S = 5.0
"""Time that requests under way get at the end."""
IDLE_S = 120.0
"""Longer than the API server keeps idle connections, which then never meets a closed one."""


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def start(
    stack: AsyncExitStack,
    app: web.Application,
    address: tuple[str, int],
    context: ssl.SSLContext | None = None,
) -> int:
    """Serve an application until the stack ends; returns the port. Raises OSError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=DRAIN_S, keepalive_timeout=IDLE_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, *address, ssl_context=context).start()
    port: int = runner.addresses[0][1]
    return port


def add_probes(app: web.Application, ready: Callable[[], bool]) -> None:
    """/healthz, which answers as long as the process does, and /readyz."""

    async def healthz(http: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(http: web.Request) -> web.Response:
        if ready():
            return web.Response(text="ok\n")
        return web.Response(text="not ready\n", status=503)

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)


def metrics_app(registry: CollectorRegistry) -> web.Application:
    """Serves /metrics."""

    async def metrics(http: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app
