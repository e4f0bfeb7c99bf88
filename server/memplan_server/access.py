"""Lets in calls with a tenant's token, within its quotas. Health and reflection are for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from memplan_server.errors import Unauthenticated
from memplan_server.interceptors import Behaviour, Interceptor
from memplan_server.profiling import Profiler
from memplan_server.service import SERVICE_NAME
from memplan_server.tenancy import MeteredProfiler, Quotas, Tenant, Tenants

__all__ = ["Access", "AccessInterceptor"]

SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call, and how much of it."""

    tenants: Tenants
    quotas: Quotas

    def tenant(self, context: Any) -> Tenant:
        """Whose token came with a call. Raises Unauthenticated."""
        metadata = context.invocation_metadata()
        text = next((value for key, value in metadata if key == "authorization"), "")
        if not text.lower().startswith(SCHEME):
            raise Unauthenticated(
                "This server wants a token. Put yours into a file, and name the file by "
                "--token-file or MEMPLAN_TOKEN_FILE; other clients send it as "
                "`authorization: Bearer TOKEN`.",
                "NO_TOKEN",
            )
        return self.tenants.of_token(text[len(SCHEME) :].strip())

    def caller(self, context: Any) -> str:
        """The name of it."""
        return self.tenant(context).name

    def metered(self, profiler: Profiler) -> Profiler:
        """One that charges tenants for what it measures; they are whom `caller` names."""
        return MeteredProfiler(profiler, self.tenants, self.quotas)


class AccessInterceptor(Interceptor):
    """Refuses calls of strangers, and those above a tenant's quotas."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._access = access

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """See `Interceptor.intercept_service`; only the planner is guarded."""
        if not details.method.startswith(f"/{SERVICE_NAME}/"):
            return continuation(details)
        return super().intercept_service(continuation, details)

    def wrap(self, method: str, behaviour: Behaviour) -> Behaviour:
        """See `Interceptor.wrap`."""

        def answer(request: Any, context: Any) -> Any:
            with self._admitted(context):
                return behaviour(request, context)

        return answer

    def wrap_stream(self, method: str, behaviour: Behaviour) -> Behaviour:
        """See `Interceptor.wrap_stream`."""

        def answer(request: Any, context: Any) -> Iterator[Any]:
            with self._admitted(context):
                yield from behaviour(request, context)

        return answer

    def _admitted(self, context: Any) -> AbstractContextManager[None]:
        return self._access.quotas.request(self._access.tenant(context))
