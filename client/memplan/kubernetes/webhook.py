"""The HTTPS server that the API server calls.

    POST /mutate            AdmissionReviews, with the policy of the settings
    POST /mutate/warn       the same, with the policy of namespaces that have one of their own
    POST /mutate/reject
    GET  /healthz, /readyz

Whatever happens, an object is admitted as it is within a second more than the plan may take.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from aiohttp import web

from memplan.kubernetes.annotations import Policy
from memplan.kubernetes.certificate import Certificate
from memplan.kubernetes.metrics import WebhookMetrics
from memplan.kubernetes.review import (
    DEFECT,
    LATE,
    LONGEST_REFUSAL,
    Answer,
    Reviewer,
    ReviewError,
    kind_of,
    parse,
    response,
    unplanned,
)
from memplan.kubernetes.serving import add_probes, metrics_app, start, stop_signal
from memplan.scheduling.sentences import one_line

__all__ = ["serve"]

log = logging.getLogger(__name__)

LARGEST_REVIEW = 8 << 20
"""The API server takes objects of at most 3 MiB."""
THREADS = 32
"""Reviews that are worked on at once, those that wait for a plan included."""
RENEWAL_S = 1.0
"""Time between two looks at the certificate."""
GRACE_S = 0.5


class Webhook:
    """The application."""

    def __init__(self, reviewer: Reviewer, patience_s: float, metrics: WebhookMetrics) -> None:
        self._reviewer = reviewer
        self._longest_s = patience_s + GRACE_S
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(THREADS, "review")
        self._ready = True
        self.app = web.Application(client_max_size=LARGEST_REVIEW)
        self.app.router.add_post("/mutate", self._mutating(None))
        for policy in Policy:
            self.app.router.add_post(f"/mutate/{policy}", self._mutating(policy))
        # Whether the planner is there does not matter: without it, objects are to pass at once.
        add_probes(self.app, lambda: self._ready)

    def drain(self) -> None:
        """Tell the endpoints of the Service to send no more."""
        self._ready = False

    def close(self) -> None:
        """Wait for nothing."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _mutating(
        self, policy: Policy | None
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def mutate(http: web.Request) -> web.Response:
            began = time.monotonic()
            if http.content_type != "application/json":
                raise web.HTTPUnsupportedMediaType(text="the body must be application/json\n")
            try:
                request = parse(await http.read())
            except ReviewError as error:
                raise web.HTTPBadRequest(text=f"{error}\n") from error
            answer = await self._answer(request, policy)
            self._metrics.reviewed(answer.outcome, time.monotonic() - began)
            _log(request, answer)
            return web.json_response(response(request["uid"], answer))

        return mutate

    async def _answer(self, request: Mapping[str, Any], policy: Policy | None) -> Answer:
        """The reviewer's answer; without one in time, or after a defect, the object passes."""
        work = asyncio.get_running_loop().run_in_executor(
            self._pool, self._reviewer.review, request, policy
        )
        try:
            return await asyncio.wait_for(work, self._longest_s)
        except TimeoutError:
            return unplanned("late", LATE)
        except Exception:  # a defect here must keep nobody from working
            log.exception("a review failed")
            return unplanned("failed", DEFECT)


def _log(request: Mapping[str, Any], answer: Answer) -> None:
    name = f"{request.get('namespace', '')}/{request.get('name') or '(generated)'}"
    text = one_line(answer.refusal or " ".join(answer.warnings), LONGEST_REFUSAL)
    level = logging.DEBUG if answer.outcome == "ignored" else logging.INFO
    log.log(level, "%s %r: %s. %s", kind_of(request), name, answer.outcome, text)


async def serve(
    reviewer: Reviewer,
    *,
    listen: tuple[str, int],
    cert: Path,
    key: Path,
    metrics_port: int | None,
    patience_s: float,
    ready: Callable[[int, int | None], None],
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is told the ports.

    Raises OSError for an address that cannot be had or TLS files that cannot be used.
    """
    certificate = Certificate(cert, key)
    metrics = WebhookMetrics()
    webhook = Webhook(reviewer, patience_s, metrics)
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        stack.callback(webhook.close)
        plain = None
        if metrics_port is not None:
            app = metrics_app(metrics.registry)
            plain = await start(stack, app, (listen[0], metrics_port))
        port = await start(stack, webhook.app, listen, certificate.context)
        renewing = asyncio.create_task(_renew(certificate, metrics))
        stack.callback(renewing.cancel)
        ready(port, plain)
        await stop.wait()
        webhook.drain()


async def _renew(certificate: Certificate, metrics: WebhookMetrics) -> None:
    while True:
        await asyncio.sleep(RENEWAL_S)
        try:
            if certificate.renew():
                metrics.renewals.inc()
                log.info("the certificate was renewed")
        except OSError as error:
            log.warning("the certificate cannot be renewed: %s", error)
