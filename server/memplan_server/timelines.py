"""Timelines of jobs: from memory, from the store, or traced by a worker, each at most once.

    timelines = TimelineCache(workers=workers, store=store, metrics=metrics, capacity_bytes=1 << 28)
    timelines.get(job, gpu_type, call)      # job is normalised

The key of a timeline is a digest of everything it depends on: what counts of the job, the kernel
class of the GPU, the versions of the model libraries, and the code that simulates. A key for one
batch size follows when the timeline found is not affine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

import numpy as np

import memplan.fakes
from memplan.types import GpuType, TrainingJob
from memplan_server.caches import LruCache
from memplan_server.calls import Call
from memplan_server.errors import LimitExceeded
from memplan_server.flights import Flight, Flights, then
from memplan_server.gpus.libraries import capability, kernel_class
from memplan_server.jobs import digest, timeline_part
from memplan_server.metrics import Metrics
from memplan_server.store import Store
from memplan_server.timeline import Timeline
from memplan_server.workers import Workers

__all__ = ["CallTimelines", "TimelineCache", "estimation_version", "simulation_version"]

log = logging.getLogger(__name__)

LIBRARIES = ("torch", "torchvision", "timm", "transformers", "diffusers")
FAKES = Path(memplan.fakes.__file__).parent
SIMULATION_CODE = ("gpus/libraries.py", "models", "simulate", "timeline.py", "training")
REPLAY_CODE = (
    "allocator",
    "gpus/convolutions",
    "planning/estimate.py",
    "planning/residual.py",
    "planning/uncertainty.py",
)
LARGEST_PEAK_BYTES = 1 << 44
"""Sixty times the largest GPU of the catalog."""
MEMORY, STORE = "timeline_memory", "timeline_store"


class TimelineCache:
    """Finds or makes timelines. Safe to use from several threads."""

    def __init__(
        self, *, workers: Workers, store: Store, metrics: Metrics, capacity_bytes: int
    ) -> None:
        """Keeps up to `capacity_bytes` of timelines in memory."""
        self._workers = workers
        self._store = store
        self._metrics = metrics
        self._memory: LruCache[str, Timeline] = LruCache(capacity_bytes, _weigh)
        self._flights: Flights[Timeline] = Flights()
        metrics.cache_bytes.labels(MEMORY).set_function(lambda: self._memory.held_bytes)
        metrics.cache_bytes.labels(STORE).set_function(store.size_bytes)

    def get(self, job: TrainingJob, gpu_type: GpuType, call: Call) -> Timeline:
        """The timeline of a normalised job on such a GPU, for its micro-batch size (0 counts as 1).

        Raises what a worker raises for the job, and TimeLimitExceeded or Cancelled for the call.
        """
        return self.find(_Wanted.of(job, gpu_type), call)

    def prepare(self, job: TrainingJob, gpu_types: Iterable[GpuType], call: Call) -> None:
        """Have what `get` needs for these GPU types traced side by side. Raises what `get` raises.

        One timeline may hold for several kernel classes, so no more are begun at once than there
        are workers, the first one alone: most often it holds for all.
        """
        wanted = (_Wanted.of(job, gpu_type) for gpu_type in gpu_types)
        missing = {w.kernel_class: w for w in wanted}
        at_once = 1
        while missing:
            group = list(missing.values())[:at_once]
            with ThreadPoolExecutor(len(group)) as pool:
                found = list(pool.map(lambda w: self.find(w, call), group))
            served = {k for timeline in found for k in timeline.kernel_classes}
            for known in served | {w.kernel_class for w in group}:
                missing.pop(known, None)
            at_once = self._workers.count

    def find(self, wanted: _Wanted, call: Call) -> Timeline:
        """See `get`."""
        call.check()
        timeline = self._get(wanted, "", call)
        if wanted.is_served_by(timeline):
            return timeline
        return self._get(wanted, f"/{wanted.batch_size}", call)

    def _get(self, wanted: _Wanted, suffix: str, call: Call) -> Timeline:
        key = wanted.key(wanted.kernel_class) + suffix
        found = self._find(key)
        if found is None:
            found = self._flights.result(key, lambda: self._start(wanted, key, suffix), call)
        return found

    def _find(self, key: str) -> Timeline | None:
        """The timeline kept under `key`, in memory or in the store."""
        timeline = self._memory.get(key)
        self._count(MEMORY, timeline is not None)
        if timeline is not None:
            return timeline
        data = self._store.get(key)
        self._count(STORE, data is not None)
        if data is None:
            return None
        try:
            timeline = Timeline.from_bytes(data)
        except Exception as error:  # whatever zip, json and numpy say of damaged bytes
            log.warning("a stored timeline is damaged and traced again: %r", error)
            return None
        self._memory.put(key, timeline)
        return timeline

    def _start(self, wanted: _Wanted, key: str, suffix: str) -> Flight[Timeline]:
        """Have a worker trace it, unless another flight has landed meanwhile."""
        known = self._memory.get(key)
        if known is not None:
            done: Future[Timeline] = Future()
            done.set_result(known)
            return Flight(done)
        job = replace(wanted.part, micro_batch_size=wanted.batch_size)
        work = self._workers.submit("trace", job, wanted.kernel_class)
        return Flight(then(work.future, lambda data: self._keep(wanted, suffix, data)), work.cancel)

    def _keep(self, wanted: _Wanted, suffix: str, data: bytes) -> Timeline:
        timeline = Timeline.from_bytes(data)
        classes = dict.fromkeys([wanted.kernel_class, *timeline.kernel_classes])
        keys = [wanted.key(kernel_class) + suffix for kernel_class in classes]
        self._store.put(keys, data)
        for key in keys:
            self._memory.put(key, timeline)
        return timeline

    def _count(self, where: str, hit: bool) -> None:
        self._metrics.cache_requests.labels(where, "hit" if hit else "miss").inc()


class CallTimelines:
    """The timelines as one call sees them: `planning.Timelines`. For one thread.

    Planning asks for the same few again and again, one batch size after the other. Those that were
    found are told apart by comparing jobs, which is quick where parts of them are the same objects.
    """

    def __init__(self, timelines: TimelineCache, call: Call) -> None:
        self._timelines = timelines
        self._call = call
        self._found: list[tuple[_Wanted, Timeline]] = []

    def prepare(self, job: TrainingJob, gpu_types: Iterable[GpuType]) -> None:
        """See `TimelineCache.prepare`."""
        self._timelines.prepare(job, gpu_types, self._call)

    def get(self, job: TrainingJob, gpu_type: GpuType) -> Timeline:
        """See `TimelineCache.get`. Each time it is looked whether the call is still wanted.

        Raises LimitExceeded for a job larger than what planning computes with.
        """
        self._call.check()
        wanted = _Wanted.of(job, gpu_type)
        for known, timeline in self._found:
            if known.is_like(wanted) and wanted.is_served_by(timeline):
                return timeline
        timeline = self._timelines.find(wanted, self._call)
        _check_size(timeline, wanted.batch_size)
        self._found.append((wanted, timeline))
        return timeline


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a timeline is asked for."""

    part: TrainingJob
    """The part of the job that it depends on."""
    kernel_class: tuple[int, int]
    batch_size: int

    @classmethod
    def of(cls, job: TrainingJob, gpu_type: GpuType) -> _Wanted:
        kernels = kernel_class(capability(gpu_type))
        return cls(timeline_part(job), kernels, max(job.micro_batch_size, 1))

    def key(self, kernel_class: tuple[int, int]) -> str:
        """The key for such GPUs, whatever the batch size."""
        major, minor = kernel_class
        return f"timeline/{digest(self.part, simulation_version())}/{major}.{minor}"

    def is_like(self, other: _Wanted) -> bool:
        """Whether they differ in the batch size at most."""
        return self.kernel_class == other.kernel_class and self.part == other.part

    def is_served_by(self, timeline: Timeline) -> bool:
        """Whether a timeline of the same key holds for this batch size."""
        return timeline.affine or self.batch_size in timeline.traced_batch_sizes


def _check_size(timeline: Timeline, batch_size: int) -> None:
    """Raise LimitExceeded when sums of sizes could leave the numbers that planning uses."""
    sizes = timeline.intercept + timeline.slope * float(batch_size)
    allocations = timeline.events >= 0
    storage = np.where(allocations, timeline.events, ~timeline.events)
    peak = np.cumsum(np.where(allocations, sizes[storage], -sizes[storage])).max(initial=0)
    if peak > LARGEST_PEAK_BYTES:
        tib = f"{peak / 2**40:,.0f} TiB at batch size {batch_size:,}"
        raise LimitExceeded(f"The job takes {tib}; this server computes with 16 TiB at most.")


@cache
def simulation_version() -> str:
    """A digest of the library versions and the code that timelines and model names come from."""
    return _code_version(SIMULATION_CODE)


@cache
def estimation_version() -> str:
    """The same for estimates, of which timelines are a part."""
    return _code_version(SIMULATION_CODE + REPLAY_CODE)


def _code_version(names: Iterable[str]) -> str:
    sha = hashlib.sha256()
    for library in LIBRARIES:
        sha.update(f"{library} {_version(library)}\n".encode())
    root = Path(__file__).parent
    for path in (FAKES, *(root / name for name in names)):
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            sha.update(f"{file.relative_to(path.parent)}\n".encode() + file.read_bytes())
    return sha.hexdigest()


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _weigh(_: str, timeline: Timeline) -> int:
    """Bytes of a timeline, shared out among the keys it is kept under."""
    arrays = (getattr(timeline, f.name) for f in fields(timeline))
    total = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    return (total + 200 * len(timeline.modules)) // max(len(timeline.kernel_classes), 1)
