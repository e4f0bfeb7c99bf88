"""Jobs measured on the devices of this machine, each in a process of its own.

    profiler = LocalProfiler(DeviceQueue(...), gpus=gpus, context_bytes=..., ...)
    for event in profiler.profile(asked, call): ...

The caller's thread does all the waiting: in the queue, for a GPU that others use, for the process.
When it leaves, whatever for, the process group is killed and awaited.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from memplan.types import DeviceType, MeasuredProfile, ProfileMemoryResponse, TrainingJob
from memplan_server.calls import Call
from memplan_server.errors import (
    LimitExceeded,
    MeasurementFailure,
    NoDevice,
    TimeLimitExceeded,
)
from memplan_server.measure.child import Child, ChildDied
from memplan_server.measure.child_process import Kind
from memplan_server.measure.profiled import Profiled
from memplan_server.measure.request import Request
from memplan_server.profiling import conversion
from memplan_server.profiling.devices import Device, Gpus
from memplan_server.profiling.interface import Asked
from memplan_server.profiling.queue import DeviceQueue, Place
from memplan_server.profiling.throughput import Throughput

__all__ = ["MEASURE", "LargestBatch", "LocalProfiler"]

log = logging.getLogger(__name__)

MEASURE = "memplan_server.measure.profile:profile"
DEFAULT_GPU_TYPE = "nvidia-a100-80gb"
SOFT_LIMIT = 0.9
"""Share of the time limit in which the process tries to be done, with fewer steps if need be."""
LOOK_AGAIN_S = 1.0
RETRY_AFTER_S = 30.0
GIVEN_BACK_WITHIN_S = 10.0
GIVEN_BACK_BYTES = 64 << 20
"""A GPU's memory is back when no more than this is in use beyond what was before."""

LargestBatch = Callable[[TrainingJob, str, int, Call], int]
"""(job, GPU type or "", bytes there are, call) -> the largest batch size by estimate."""
Events = Generator[ProfileMemoryResponse, None, None]


@dataclass(kw_only=True)
class LocalProfiler:
    """A `Profiler`."""

    queue: DeviceQueue
    gpus: Gpus
    context_bytes: Callable[[str], int]
    """The CUDA context of a GPU type of the catalog."""
    largest_batch: LargestBatch
    host_memory_bytes: int = 0
    """What a process that measures on the CPU may take; 0: no limit."""
    measure: str = MEASURE
    """What the process calls, `module:function`."""
    _stopped: Call = field(default_factory=Call)

    def can(self, asked: Asked) -> bool:
        """Whether there is a device for it here."""
        return any(self._suits(asked, device) for device in self.queue.devices)

    def has_gpu_for(self, asked: Asked) -> bool:
        """Whether there is a GPU for it here."""
        return any(
            device.type is DeviceType.CUDA and self._suits(asked, device)
            for device in self.queue.devices
        )

    def stop(self) -> None:
        """Cancel all that is under way; what comes from now on is cancelled at once."""
        self._stopped.cancel()

    def profile(self, asked: Asked, call: Call) -> Iterator[ProfileMemoryResponse]:
        """See `Profiler.profile`."""
        if not self.can(asked):
            raise NoDevice(self._missing(asked))
        if not asked.wait_for_gpu:
            self._refuse_if_all_are_used(asked)
        with (
            self.queue.place(
                asked.peer,
                time_limit_s=asked.time_limit_s,
                suitable=lambda device: self._suits(asked, device),
            ) as place,
            call.when_cancelled(self.queue.wake),
            self._stopped.when_cancelled(call.cancel),
        ):
            yield from self._queued(place, call)
            assert place.device is not None
            yield from self._until_free(place.device, asked, call)
            place.measuring, place.began = True, time.monotonic()
            yield from self._on(place.device, asked, call)

    def _suits(self, asked: Asked, device: Device) -> bool:
        on_cuda = device.type is DeviceType.CUDA
        if asked.device_type is DeviceType.CPU:
            return not on_cuda
        if on_cuda:
            return asked.gpu_type in ("", device.gpu_type)
        has_gpu = any(d.type is DeviceType.CUDA for d in self.queue.devices)
        only_cuda = asked.device_type is DeviceType.CUDA or asked.gpu_type or asked.find_batch_size
        return not has_gpu and not only_cuda

    def _missing(self, asked: Asked) -> str:
        if asked.find_batch_size:
            return "To measure batch sizes takes a CUDA GPU, and there is none here."
        if asked.gpu_type:
            return f"There is no {asked.gpu_type} here. Ask for another GPU type, or for the CPU."
        return "There is no CUDA GPU here. Ask for the CPU, or start a profiler where there is one."

    def _refuse_if_all_are_used(self, asked: Asked) -> None:
        """Before the queue, so that nobody waits in it in vain."""
        found = [d for d in self.queue.devices if self._suits(asked, d)]
        obstacles = [self._obstacle(d) for d in found if not self.queue.is_measuring(d)]
        if len(obstacles) == len(found) and all(obstacles):
            raise LimitExceeded(obstacles[0], RETRY_AFTER_S)

    def _obstacle(self, device: Device) -> str:
        return self.gpus.obstacle(device) if device.type is DeviceType.CUDA else ""

    def _queued(self, place: Place, call: Call) -> Events:
        """Tell how it stands, at each change, until it has a device."""
        told = None
        waiting = self.queue.standing(place)
        while waiting is not None:
            call.check()
            if told is None or waiting.position != told.position:
                told = waiting
                yield conversion.queued(waiting)
            waiting = self.queue.wait(place, _shortest(call.remaining_s(), LOOK_AGAIN_S))

    def _until_free(self, device: Device, asked: Asked, call: Call) -> Events:
        """Others may use the GPU: refuse, or wait, as asked."""
        told = False
        while obstacle := self._obstacle(device):
            call.check()
            if not asked.wait_for_gpu:
                raise LimitExceeded(obstacle, RETRY_AFTER_S)
            if not told:
                log.info("a profile waits: %s", obstacle)
                yield conversion.queued()
                told = True
            self.queue.pause(_shortest(call.remaining_s(), LOOK_AGAIN_S))

    def _on(self, device: Device, asked: Asked, call: Call) -> Events:
        """Measure, and give the profile."""
        deadline = time.monotonic() + asked.time_limit_s
        before = self._used(device)
        try:
            if asked.find_batch_size:
                profile = yield from self._throughput(device, asked, call, deadline)
            else:
                found = yield from self.run(device, asked, call, deadline)
                profile = self._profile(device, asked, found)
        finally:
            self._await_memory(device, before)
        yield ProfileMemoryResponse(profile=profile)

    def _throughput(
        self, device: Device, asked: Asked, call: Call, deadline: float
    ) -> Generator[ProfileMemoryResponse, None, MeasuredProfile]:
        def run(at: Asked) -> Generator[ProfileMemoryResponse, None, Profiled]:
            return self.run(device, at, call, deadline)

        def start(room: int) -> int:
            return self.largest_batch(asked.job, device.gpu_type, room, call)

        throughput = Throughput(asked=asked, deadline=deadline, run=run, start=start)
        yield from throughput.measure()
        return throughput.added_to(self._profile(device, asked, throughput.first()))

    def run(
        self, device: Device, asked: Asked, call: Call, deadline: float
    ) -> Generator[ProfileMemoryResponse, None, Profiled]:
        """One process, until it is done, the deadline is there or the caller leaves."""
        child = Child(
            self.measure,
            self._request(device, asked, deadline),
            reporting=True,
            environment=_environment(device),
            memory_limit_bytes=self._host_limit(device),
        )
        with child.ended(), call.when_cancelled(child.kill):
            while True:
                kind, value = self._next(child, asked, call, deadline)
                if kind is Kind.RETURNED:
                    assert isinstance(value, Profiled)
                    return value
                yield conversion.progress(value)

    def _next(self, child: Child, asked: Asked, call: Call, deadline: float) -> tuple[Kind, Any]:
        left = max(0.0, deadline - time.monotonic())
        try:
            return child.next(_shortest(call.remaining_s(), left))
        except TimeLimitExceeded:
            call.check()
            raise TimeLimitExceeded(
                f"The profile was not done in its time limit of {asked.time_limit_s:g} s and was "
                "stopped. Give it more time, fewer steps or a smaller batch."
            ) from None
        except ChildDied as error:
            call.check()
            raise MeasurementFailure(
                f"The process that measured the job is gone: {error}. The server goes on; try "
                "again, or describe a smaller job."
            ) from None

    def _request(self, device: Device, asked: Asked, deadline: float) -> Request:
        left = deadline - time.monotonic()
        return Request(
            job=asked.job,
            device_type=device.type.value,
            warmup_steps=asked.warmup_step_count,
            steps=asked.step_count,
            history=True,
            memory_limit_bytes=asked.memory_limit_bytes,
            context_bytes=self.context_bytes(asked.gpu_type or DEFAULT_GPU_TYPE),
            host_memory_bytes=self.host_memory_bytes,
            time_limit_s=max(0.1, left * SOFT_LIMIT),
        )

    def _profile(self, device: Device, asked: Asked, found: Profiled) -> MeasuredProfile:
        if device.type is DeviceType.CUDA:
            notes = self.gpus.notes(device)
            return conversion.measured_profile(asked.job, device, found, notes, shared=bool(notes))
        name = asked.gpu_type or DEFAULT_GPU_TYPE
        limited = (f"Of the memory limit, the context of the {name} was taken off.",)
        notes = limited if asked.memory_limit_bytes else ()
        return conversion.measured_profile(asked.job, device, found, notes)

    def _host_limit(self, device: Device) -> int | None:
        """CUDA maps far more than it takes: no limit there."""
        return None if device.type is DeviceType.CUDA else self.host_memory_bytes or None

    def _used(self, device: Device) -> int:
        return self.gpus.used_bytes(device) if device.type is DeviceType.CUDA else 0

    def _await_memory(self, device: Device, before: int) -> None:
        """The driver takes a moment to clear up after a process."""
        deadline = time.monotonic() + GIVEN_BACK_WITHIN_S
        while self._used(device) > before + GIVEN_BACK_BYTES:
            if time.monotonic() > deadline:
                log.warning("memory of %s is not back after a profile", device.name)
                return
            time.sleep(0.1)


def _environment(device: Device) -> dict[str, str | None]:
    """The process sees its device only."""
    return {"CUDA_VISIBLE_DEVICES": device.uuid, "HF_HUB_OFFLINE": "1"}


def _shortest(remaining_s: float | None, seconds: float) -> float:
    return seconds if remaining_s is None else min(remaining_s, seconds)
