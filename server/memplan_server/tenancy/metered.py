"""Charges tenants for what is measured for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from memplan.types import ProfileMemoryResponse, ProfileStage
from memplan_server.calls import Call
from memplan_server.errors import NotAllowed
from memplan_server.profiling.interface import Asked, Profiler
from memplan_server.tenancy.quotas import Quotas
from memplan_server.tenancy.tenants import Tenants

__all__ = ["MeteredProfiler"]


@dataclass(frozen=True, slots=True)
class MeteredProfiler:
    """A `Profiler` around another one. Who asks is the name of a tenant; waiting costs nothing."""

    inner: Profiler
    tenants: Tenants
    quotas: Quotas

    def profile(self, asked: Asked, call: Call) -> Iterator[ProfileMemoryResponse]:
        """See `Profiler.profile`; raises `NotAllowed` and `QuotaExceeded` besides."""
        tenant = self.tenants.named(asked.peer)
        if tenant is None:
            raise NotAllowed(f"{asked.peer} is no tenant of this server any more.")
        with self.quotas.measuring(tenant, asked.time_limit_s) as meter:
            for event in self.inner.profile(asked, call):
                if event.progress is None or event.progress.stage is not ProfileStage.QUEUED:
                    meter.start()
                yield event
