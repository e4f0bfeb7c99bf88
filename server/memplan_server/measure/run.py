"""A job run for real, for some steps. The inside of a child process.

outcome = in_child("memplan_server.measure.run:run", Request(job=job, device_type="cuda"))
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from memplan.types import PhasePeak, ProfileStage
from memplan_server.errors import InvalidJob, MemplanError, Violation
from memplan_server.measure import cuda, real
from memplan_server.measure.host import HostMeter
from memplan_server.measure.measurement import Measurement, OutOfMemory, StepSeconds
from memplan_server.measure.request import Progress, Report, Request
from memplan_server.measure.watch import Seen, Watch
from memplan_server.models.explained import first_line
from memplan_server.timeline import Phase
from memplan_server.training import Loop, Observer, Unobserved

__all__ = ["Outcome", "run"]

_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "diffusers")


class Meter(Protocol):
    """The device a job runs on, and what can be read off it."""

    device: torch.device
    memory_limit_bytes: int
    """What the job may take; 0: not known."""

    def watch(self, *, history: bool, operators: bool) -> Watch:
        """How to watch the run; called first."""
        ...

    def start(self) -> None:
        """Start the device."""

    def place(self, module: nn.Module) -> None:
        """Move the model there."""

    def synchronize(self) -> None:
        """Wait until it is done."""

    def note_context(self) -> None:
        """Called before the first step and after the last."""

    def peaks(self) -> tuple[int, int]:
        """Peak allocated and reserved bytes so far."""
        ...

    def phase_peaks(self) -> tuple[PhasePeak, ...]:
        """The peak in each phase; empty where it is not known."""
        ...

    def readings(self) -> dict[str, Any]:
        """Fields of a `Measurement`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run gives."""

    measurement: Measurement
    seen: Seen
    """With `history` or `operators`: every allocation and free."""
    phases: tuple[PhasePeak, ...] = ()
    """With `history`, on CUDA: the peak in each phase of the step."""
    memory_limit_bytes: int = 0
    """What the job might take."""
    micro_batch_size: int = 0
    timed_steps: int = 0
    """Steps that were timed: fewer than asked for where the time was short."""


@dataclass(slots=True)
class _Watched(Unobserved):
    """Passes the phases on, and remembers where the loop is."""

    inner: Observer
    phase: Phase = Phase.SETUP
    step: int = 0

    def enter(self, phase: Phase, step: int) -> None:
        self.phase, self.step = phase, step
        self.inner.enter(phase, step)


def run(
    request: Request, wait: Callable[[], None] | None = None, report: Report | None = None
) -> Outcome:
    """Run the job. Running out of memory is an outcome.

    `wait` is called when everything is prepared on the host, before the device is started; `report`
    before each step and after the last. Raises `InvalidJob` and `UnknownName` for a job that cannot
    be built or executed.
    """
    return _Run(request, wait, report).outcome()


class _Run:
    def __init__(
        self, request: Request, wait: Callable[[], None] | None, report: Report | None
    ) -> None:
        self._request = request
        self._wait = wait
        self._report = report
        self._deadline = time.perf_counter() + (request.time_limit_s or float("inf"))
        self._seconds: list[float] = []
        self._loop: Loop | None = None

    def outcome(self) -> Outcome:
        request = self._request
        on_cuda = request.device_type == "cuda"
        real.set_backends(request.job)
        made = real.make(request.job, torch.device("cuda", 0) if on_cuda else torch.device("cpu"))
        if self._wait is not None:
            self._wait()
        meter_class = cuda.CudaMeter if on_cuda else HostMeter
        meter: Meter = meter_class(request.job.allocator, request.memory_limit_bytes)
        watch = meter.watch(history=request.history, operators=request.operators)
        observer = _Watched(watch.observer)
        meter.start()
        ran_out = None
        try:
            with _collected_by_step(), watch.mode:
                self._train(meter, made, observer)
        except Exception as error:
            if not cuda.is_out_of_memory(error):
                raise _about_the_job(error) from error
            ran_out = OutOfMemory(
                requested_bytes=cuda.asked_for(error),
                phase=observer.phase.name.lower(),
                step=observer.step,
            )
        return Outcome(
            measurement=self._measurement(meter, made, ran_out),
            seen=watch.seen() if request.history or request.operators else Seen(),
            phases=meter.phase_peaks(),
            memory_limit_bytes=meter.memory_limit_bytes,
            micro_batch_size=request.job.micro_batch_size,
            timed_steps=max(0, len(self._seconds) - request.warmup_steps),
        )

    def _train(self, meter: Meter, made: real.Made, observer: Observer) -> None:
        observer.enter(Phase.SETUP, 0)
        meter.place(made.built.module)
        self._loop = loop = real.loop_over(made, observer, self._request.micro_steps)
        loop.start()
        meter.note_context()
        for index in range(self._request.warmup_steps + self._request.steps):
            if self._time_is_up():
                break
            self._tell(meter, index)
            meter.synchronize()
            start = time.perf_counter()
            loop.step()
            meter.synchronize()
            self._seconds.append(time.perf_counter() - start)
            gc.collect()
        meter.note_context()
        self._tell(meter, len(self._seconds))

    def _time_is_up(self) -> bool:
        """Whether there is a step that counts and no time for another."""
        if len(self._seconds) <= self._request.warmup_steps:
            return False
        return time.perf_counter() + self._seconds[-1] > self._deadline

    def _tell(self, meter: Meter, step: int) -> None:
        if self._report is None:
            return
        request = self._request
        warm = step >= request.warmup_steps
        allocated, reserved = meter.peaks()
        self._report(
            Progress(
                stage=ProfileStage.MEASURING if warm else ProfileStage.WARMING_UP,
                micro_batch_size=request.job.micro_batch_size,
                step=step,
                step_count=request.warmup_steps + request.steps,
                peak_allocated_bytes=allocated,
                peak_reserved_bytes=reserved,
            )
        )

    def _measurement(
        self, meter: Meter, made: real.Made, ran_out: OutOfMemory | None
    ) -> Measurement:
        loop = self._loop
        return Measurement(
            device_type=self._request.device_type,
            library_versions=_library_versions(),
            out_of_memory=ran_out,
            step_seconds=_spread(self._seconds[self._request.warmup_steps :]),
            steps=loop.steps_done if loop else 0,
            optimizer_steps=loop.optimizer_steps_done if loop else 0,
            notes=made.notes,
            **meter.readings(),
        )


@contextlib.contextmanager
def _collected_by_step() -> Iterator[None]:
    """Garbage is collected where the loop's steps end and nowhere else, and only what is new."""
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def _spread(seconds: list[float]) -> StepSeconds | None:
    if not seconds:
        return None
    if len(seconds) == 1:
        return StepSeconds(median=seconds[0], p10=seconds[0], p90=seconds[0])
    tenths = statistics.quantiles(seconds, n=10, method="inclusive")
    return StepSeconds(median=statistics.median(seconds), p10=tenths[0], p90=tenths[8])


def _library_versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    if torch.version.cuda is not None:
        versions["cuda"] = torch.version.cuda
        versions["cudnn"] = str(torch.backends.cudnn.version())
    return versions


def _about_the_job(error: Exception) -> Exception:
    """Errors on the way are the job's, as in a simulation."""
    if isinstance(error, MemplanError):
        return error
    said = f"The training step cannot be executed: {first_line(error)}"
    return InvalidJob(Violation("job", said))
