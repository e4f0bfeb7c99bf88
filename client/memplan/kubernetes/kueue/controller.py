"""What is to be checked, one after the other.

Two watches see checks and Workloads; Workloads that wait for one of our checks are looked at again
as they are now, so that an event seen late, twice or not at all does no harm. Two controllers at
once do none either: they write the same.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from urllib3.exceptions import HTTPError

from memplan.client import Client
from memplan.errors import MemplanError, UnavailableError
from memplan.kubernetes import plans
from memplan.kubernetes.annotations import Placing
from memplan.kubernetes.kueue.check import READY, RETRY, Judged, answered, judge, waiting
from memplan.kubernetes.kueue.cluster import ApiException, Cluster, now
from memplan.kubernetes.metrics import KueueMetrics
from memplan.kubernetes.serving import add_probes, metrics_app, start, stop_signal
from memplan.scheduling.planner import PLAN_TIMEOUT_S, Planner
from memplan.types import GpuTarget, PlanJobRequest

__all__ = ["Controller"]

log = logging.getLogger(__name__)

THREADS = 4
JOIN_S = 3.0
AGAIN_S = 2.0
"""Time between two tries of what failed."""

Key = tuple[str, str]
"""Namespace and name of a Workload."""


class Controller:
    """Answers the checks of one controller name until it is stopped."""

    def __init__(
        self,
        cluster: Cluster,
        client: Client,
        metrics: KueueMetrics,
        *,
        name: str,
        gpus: Sequence[GpuTarget],
        patience_s: float,
    ) -> None:
        """`patience_s`: so long a planner that is away is waited for, and then quota given back."""
        self._cluster = cluster
        self._client = client
        self._planner: Planner[plans.Plan] = Planner(client)
        self._metrics = metrics
        self._name = name
        self._gpus = tuple(gpus)
        self._patience_s = patience_s
        self._checks: set[str] = set()
        self._due: queue.Queue[Key] = queue.Queue()
        self._known: set[Key] = set()
        self._failing: dict[Key, float] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._seen = {"admissionchecks": False, "workloads": False}

    @property
    def ready(self) -> bool:
        """Whether the objects of Kueue can be watched."""
        return all(self._seen.values())

    def start(self) -> None:
        """Work in threads of its own."""
        work: list[Callable[[], None]] = [
            partial(self._watch, "admissionchecks", self._see_check),
            partial(self._watch, "workloads", self._see_workload),
            *[self._work] * THREADS,
        ]
        self._threads = [threading.Thread(target=one, daemon=True) for one in work]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing more, and let what is under way end."""
        self._stopped.set()
        self._planner.close()
        self._cluster.close()
        for thread in self._threads:
            thread.join(JOIN_S)

    def _watch(self, plural: str, see: Callable[[str, dict[str, Any]], None]) -> None:
        while not self._stopped.is_set():
            try:
                self._cluster.reach(plural)
                self._seen[plural] = True
                for event, item in self._cluster.watch(plural):
                    see(event, item)
            except (ApiException, HTTPError, OSError) as error:
                if self._stopped.is_set():
                    return
                self._seen[plural] = False
                log.warning("%s cannot be watched: %s", plural, _said(error))
                self._stopped.wait(AGAIN_S)
            except Exception:  # an object of a form that was not foreseen
                log.exception("an event of %s was not understood", plural)
                self._stopped.wait(AGAIN_S)

    def _see_check(self, event: str, check: dict[str, Any]) -> None:
        name = check["metadata"]["name"]
        if event == "DELETED" or check["spec"].get("controllerName") != self._name:
            self._checks.discard(name)
            return
        if name not in self._checks:
            self._checks.add(name)
            self._look_again()  # Workloads seen earlier were not known to wait for it
        conditions = (check.get("status") or {}).get("conditions") or []
        if not any(c["type"] == "Active" and c["status"] == "True" for c in conditions):
            self._cluster.apply_condition(check, _active(check))
            log.info("admission check %s is active", name)

    def _look_again(self) -> None:
        """Enqueue all Workloads that were seen."""
        with self._lock:
            waiting_now = list(self._known)
        for key in waiting_now:
            self._due.put(key)

    def _see_workload(self, event: str, workload: dict[str, Any]) -> None:
        metadata = workload["metadata"]
        key = (metadata["namespace"], metadata["name"])
        with self._lock:
            if event == "DELETED":
                self._known.discard(key)
                self._failing.pop(key, None)
                return
            self._known.add(key)
        if waiting(workload, self._checks):
            self._due.put(key)

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                key = self._due.get(timeout=1)
            except queue.Empty:
                continue
            try:
                self._check(key)
            except (ApiException, HTTPError, OSError) as error:
                if getattr(error, "status", None) not in (404, 409):  # it changed: an event comes
                    log.warning("%s was not checked: %s", "/".join(key), _said(error))
                    self._again(key)
            except Exception:  # a defect must not end the thread
                log.exception("%s was not checked", "/".join(key))

    def _again(self, key: Key) -> None:
        timer = threading.Timer(AGAIN_S, self._due.put, [key])
        timer.daemon = True
        timer.start()

    def _check(self, key: Key) -> None:
        workload = self._cluster.workload(*key)
        checks = waiting(workload, self._checks) if workload is not None else []
        if workload is None or not checks:
            self._failing.pop(key, None)
            return
        judged = self._judge(key, workload)
        if judged is None:
            self._again(key)
            return
        self._failing.pop(key, None)
        states = [_state(name, judged) for name in checks]
        self._cluster.apply_checks(workload, answered(workload, self._checks) + states)
        log.info("%s: %s. %s", "/".join(key), judged.state, judged.message)
        self._metrics.checks.labels(judged.state.lower()).inc()
        warning = judged.state != READY
        self._cluster.tell(workload, reason=judged.reason, note=judged.message, warning=warning)

    def _judge(self, key: Key, workload: dict[str, Any]) -> Judged | None:
        """None where the planner is away and is to be asked again."""
        try:
            return judge(workload, self._gpus, self._plan, self._labels)
        except MemplanError as error:
            since = self._failing.setdefault(key, time.monotonic())
            if time.monotonic() - since < self._patience_s:
                return None
            return Judged(state=RETRY, message=f"The planner does not answer: {error}")

    def _plan(self, request: PlanJobRequest, placing: Placing) -> plans.Plan:
        make = partial(plans.make, self._client, request, placing)
        future = self._planner.plan(repr((request, placing)), make)
        if not self._planner.wait(future, PLAN_TIMEOUT_S, lambda: None):
            raise UnavailableError("no plan in time")
        return future.result()

    def _labels(self, flavor: str) -> Mapping[str, str]:
        labels: Mapping[str, str] = self._cluster.flavor(flavor)["spec"].get("nodeLabels") or {}
        return labels


def _state(name: str, judged: Judged) -> dict[str, Any]:
    state: dict[str, Any] = {
        "name": name,
        "state": judged.state,
        "message": judged.message,
        "lastTransitionTime": now(),
    }
    if judged.updates:
        state["podSetUpdates"] = list(judged.updates)
    return state


def _active(check: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "Active",
        "status": "True",
        "reason": "Active",
        "message": "memplan plans the workloads that this check holds.",
        "lastTransitionTime": now(),
        "observedGeneration": check["metadata"].get("generation", 0),
    }


def _said(error: Exception) -> str:
    """In one line."""
    return " ".join(str(error).split())[:300]


async def serve(
    controller: Controller,
    metrics: KueueMetrics,
    port: int | None,
    ready: Callable[[int | None], None],
) -> None:
    """Run the controller until SIGTERM or SIGINT; metrics and probes on `port`.

    `ready` is told the port. Raises OSError for one that cannot be had.
    """
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        found = None
        if port is not None:
            app = metrics_app(metrics.registry)
            add_probes(app, lambda: controller.ready)
            found = await start(stack, app, ("0.0.0.0", port))
        controller.start()
        stack.callback(controller.stop)
        ready(found)
        await stop.wait()
