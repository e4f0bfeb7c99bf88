"""Where a profile is measured: on a GPU here, else at the profilers, else on the CPU here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from memplan.types import DeviceType, ProfileMemoryResponse
from memplan_server.calls import Call
from memplan_server.errors import LimitExceeded, NoDevice, Unreachable
from memplan_server.profiling.interface import Asked
from memplan_server.profiling.local import LocalProfiler
from memplan_server.profiling.remote import Remotes

__all__ = ["RoutedProfiler"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoutedProfiler:
    """A `Profiler`. A server that has profilers leaves the CPU's work to them as well."""

    local: LocalProfiler
    remotes: Remotes | None = None

    def profile(self, asked: Asked, call: Call) -> Iterator[ProfileMemoryResponse]:
        """See `Profiler.profile`."""
        if self.remotes is None or asked.forwarded:
            yield from self.local.profile(asked, call)
        elif self.local.has_gpu_for(asked):
            yield from self._here_or_there(self.remotes, asked, call)
        elif asked.device_type is not DeviceType.UNSPECIFIED:
            yield from self.remotes.profile(asked, call)
        else:
            yield from self._gpu_or_cpu(self.remotes, asked, call)

    def _here_or_there(
        self, remotes: Remotes, asked: Asked, call: Call
    ) -> Iterator[ProfileMemoryResponse]:
        """Here, unless it is refused here: the queue is full, or others use the GPU."""
        try:
            yield from self.local.profile(asked, call)
            return
        except LimitExceeded as error:
            refused = error
        try:
            yield from remotes.profile(asked, call)
        except (NoDevice, Unreachable):
            raise refused from None

    def _gpu_or_cpu(
        self, remotes: Remotes, asked: Asked, call: Call
    ) -> Iterator[ProfileMemoryResponse]:
        """A GPU where any profiler has one; the CPU only where none has."""
        try:
            yield from remotes.profile(replace(asked, device_type=DeviceType.CUDA), call)
            return
        except NoDevice:
            if asked.gpu_type or asked.find_batch_size:
                raise
        yield from remotes.profile(replace(asked, device_type=DeviceType.CPU), call)
