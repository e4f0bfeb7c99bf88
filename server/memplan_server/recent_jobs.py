"""The jobs asked about last as Prometheus metrics, for schedulers that look there.

    recent = RecentJobs()
    for note in recent.notes(request, response):    # what giving this answer adds
        note()

The labels are a digest, names of the catalogs and words of the contract: nothing is written that a
request may choose freely, and as many jobs are kept as `most`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from memplan.types import (
    EstimateMemoryRequest,
    EstimateMemoryResponse,
    Model,
    PlanJobRequest,
    PlanJobResponse,
    TrainingJob,
)
from memplan_server.jobs import job_digest, normalize

__all__ = ["MOST_JOBS", "RecentJobs"]

MOST_JOBS = 50
_BY_GPU = ("job_digest", "gpu_type")


@dataclass(frozen=True, slots=True)
class _Need:
    """What a job takes on one GPU type."""

    expected_bytes: int
    upper_bound_bytes: int
    verdict: str
    """"" where only the memory was asked for."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A job at the micro-batch size that was asked about last."""

    digest: str
    model: str
    optimizer: str
    precision: str
    micro_batch_size: int
    needs: Mapping[str, _Need]
    """By GPU type."""

    def after(self, earlier: _Seen | None) -> _Seen:
        """With what was known before of the same batch on GPU types not asked about now."""
        if earlier is None or earlier.micro_batch_size != self.micro_batch_size:
            return self
        return replace(self, needs={**earlier.needs, **self.needs})


class RecentJobs(Collector):
    """Safe to use from several threads."""

    def __init__(self, most: int = MOST_JOBS) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, _Seen] = OrderedDict()

    def notes(self, request: object, response: object) -> tuple[Callable[[], None], ...]:
        """What to call whenever this answer is given; nothing for answers about no job."""
        if isinstance(request, PlanJobRequest) and isinstance(response, PlanJobResponse):
            return (partial(self._note, _seen(request.job, _placed(response))),)
        if isinstance(request, EstimateMemoryRequest):
            assert isinstance(response, EstimateMemoryResponse)
            return (partial(self._note, _seen(request.job, _estimated(response))),)
        return ()

    def _note(self, seen: _Seen) -> None:
        with self._lock:
            earlier = self._jobs.get(seen.digest)
            if earlier is not seen:
                self._jobs[seen.digest] = seen.after(earlier)
            self._jobs.move_to_end(seen.digest)
            if len(self._jobs) > self._most:
                self._jobs.popitem(last=False)

    def collect(self) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
        """The metrics of all jobs that are kept."""
        with self._lock:
            jobs = tuple(self._jobs.values())
        yield from _of_jobs(jobs)
        yield from _of_needs(jobs)


def _of_jobs(jobs: tuple[_Seen, ...]) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
    info = InfoMetricFamily(
        "memplan_job",
        f"One of the last {MOST_JOBS} jobs asked about.",
        labels=("job_digest", "model", "optimizer", "precision"),
    )
    size = GaugeMetricFamily(
        "memplan_job_micro_batch_size",
        "Samples in a micro-batch of the job, as it was asked about last.",
        labels=("job_digest",),
    )
    for job in jobs:
        info.add_metric([job.digest, job.model, job.optimizer, job.precision], {})
        size.add_metric([job.digest], job.micro_batch_size)
    yield from (info, size)


def _of_needs(jobs: tuple[_Seen, ...]) -> Iterator[GaugeMetricFamily]:
    peak = GaugeMetricFamily(
        "memplan_job_predicted_peak_bytes",
        "Expected peak of what the driver shows for the job, by GPU type.",
        labels=_BY_GPU,
    )
    bound = GaugeMetricFamily(
        "memplan_job_upper_bound_bytes",
        "Upper bound of the same, at the confidence asked for.",
        labels=_BY_GPU,
    )
    verdict = GaugeMetricFamily(
        "memplan_job_verdict",
        "1 for the verdict of the job on each GPU type (FITS, DOES_NOT_FIT, UNCERTAIN).",
        labels=(*_BY_GPU, "verdict"),
    )
    for job in jobs:
        for gpu_type, need in job.needs.items():
            peak.add_metric([job.digest, gpu_type], need.expected_bytes)
            bound.add_metric([job.digest, gpu_type], need.upper_bound_bytes)
            if need.verdict:
                verdict.add_metric([job.digest, gpu_type, need.verdict], 1)
    yield from (peak, bound, verdict)


def _seen(job: TrainingJob, needs: Mapping[str, _Need]) -> _Seen:
    known = normalize(job)
    return _Seen(
        digest=job_digest(known),
        model=_model(known.model),
        optimizer=known.optimizer.type.value,
        precision=known.precision.value,
        micro_batch_size=known.micro_batch_size,
        needs=needs,
    )


def _model(model: Model) -> str:
    """Its name in a catalog; of others what kind of source they have."""
    if model.catalog is not None:
        return model.catalog.name
    return "layer_stack" if model.layer_stack is not None else "graph"


def _placed(response: PlanJobResponse) -> dict[str, _Need]:
    """By GPU type; of several GPUs of one type the one with most room."""
    roomiest = sorted(response.placements, key=lambda placement: placement.capacity_bytes)
    return {
        p.gpu.gpu_type: _Need(p.device_used_bytes, p.upper_bound_bytes, p.verdict.value)
        for p in roomiest
    }


def _estimated(response: EstimateMemoryResponse) -> dict[str, _Need]:
    found = response.estimate
    return {found.gpu_type: _Need(found.device_used_bytes, found.upper_bound_bytes, "")}
