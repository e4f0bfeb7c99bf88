"""The service, asked so that neither a dead nor a frozen one holds a submission up.

A plan is made in the background, once for equal jobs, and goes on when whoever asked stops waiting:
the next submission of the job finds it. Whether the service is alive is a second, cheap question.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from memplan.client import Client
from memplan.errors import MemplanError, UnknownNameError
from memplan.slurm.decide import Judged, judge
from memplan.slurm.inventory import Kind
from memplan.types import AccumulationPlan, PlanJobRequest, PlanJobResponse

__all__ = ["Plan", "Planner"]

log = logging.getLogger(__name__)

PLAN_TIMEOUT_S = 60.0
ALIVE_TIMEOUT_S = 0.4
STEP_S = 0.1
"""Time between two signs of life."""
AWAY_S = 2.0
"""For so long after a question without an answer nobody waits for the service."""
KEPT_S = 300.0
MOST_KEPT = 256
THREADS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the service says of a job, on the GPUs of a cluster."""

    judged: Judged
    answer: PlanJobResponse
    accumulation: AccumulationPlan | None


class Planner:
    """Plans by job and GPUs. Safe to use from several threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pool = ThreadPoolExecutor(THREADS, "plan")
        self._lock = threading.Lock()
        self._away_until = 0.0
        self._plans: OrderedDict[str, tuple[float, Future[Plan]]] = OrderedDict()

    def close(self) -> None:
        """Start no more plans."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def plan(self, request: PlanJobRequest, kinds: Sequence[Kind]) -> Future[Plan]:
        """The plan, under way or done; raises MemplanError from its result()."""
        key = repr((request, [(kind.gres_type, kind.gpu_type, kind.nodes) for kind in kinds]))
        now = time.monotonic()
        with self._lock:
            since, future = self._plans.get(key, (0.0, None))
            failed = future is not None and future.done() and future.exception() is not None
            if future is None or failed or now - since > KEPT_S:
                future = self._pool.submit(self._make, request, tuple(kinds))
                self._plans[key] = (now, future)
                while len(self._plans) > MOST_KEPT:
                    self._plans.popitem(last=False)
            return future

    def wait(
        self, future: Future[Plan], patience_s: float, working: Callable[[], None] | None
    ) -> bool:
        """Whether the plan is done in that time.

        With `working`, which is called meanwhile, only as long as the service lives.
        """
        now = time.monotonic()
        deadline = now + (patience_s if now >= self._away_until else STEP_S / 2)
        while not _done(future, max(0.0, min(STEP_S, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return future.done()
            if working is not None:
                working()
                if not self._alive():
                    return future.done()
        return True

    def _alive(self) -> bool:
        try:
            next(self._client.list_gpu_types(page_size=1, timeout=ALIVE_TIMEOUT_S), None)
        except MemplanError as error:
            log.info("the service does not answer: %s", error)
            self._away_until = time.monotonic() + AWAY_S
            return False
        return True

    def _make(self, request: PlanJobRequest, kinds: tuple[Kind, ...]) -> Plan:
        kinds, answer = self._plan_known(request, kinds)
        judged = judge(kinds, answer)
        accumulation = None
        if request.global_batch_size and judged.chosen:
            accumulation = self._client.plan_accumulation(
                request.job,
                judged.first.gpu,
                global_batch_size=request.global_batch_size,
                data_parallel_size=request.data_parallel_size,
                headroom_fraction=request.headroom_fraction,
                confidence=request.confidence,
                timeout=PLAN_TIMEOUT_S,
            )
        return Plan(judged=judged, answer=answer, accumulation=accumulation)

    def _plan_known(
        self, request: PlanJobRequest, kinds: tuple[Kind, ...]
    ) -> tuple[tuple[Kind, ...], PlanJobResponse]:
        """The plan for the GPUs that the service knows; the others lose their GPU type."""
        while True:
            gpus = tuple(dict.fromkeys(kind.gpu_type for kind in kinds if kind.gpu_type))
            if not gpus:
                return kinds, PlanJobResponse()
            try:
                answer = self._client.plan_job(
                    request.job,
                    gpus,
                    headroom_fraction=request.headroom_fraction,
                    confidence=request.confidence,
                    timeout=PLAN_TIMEOUT_S,
                )
            except UnknownNameError as error:
                if error.name not in gpus:
                    raise
                log.warning("no GPU type of the catalog: %r; see [gpus]", error.name)
                kinds = tuple(
                    replace(kind, gpu_type="") if kind.gpu_type == error.name else kind
                    for kind in kinds
                )
            else:
                return kinds, answer


def _done(future: Future[Plan], timeout_s: float) -> bool:
    try:
        future.exception(timeout_s)
    except TimeoutError:
        return False
    return True
