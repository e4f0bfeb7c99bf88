"""Calls of the planner's methods by name: deadlines, conversion, errors, streams and pages.

connection = Connection(Endpoint(target="localhost:50051"), timeout=60.0)
answer = connection.call("EstimateMemory", EstimateMemoryRequest(job=job), timeout=None)
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc

from memplan._messages import to_answer, to_message
from memplan._status import to_error
from memplan.channel import open_channel
from memplan.endpoint import Endpoint
from memplan.v1 import planner_pb2_grpc

__all__ = ["Connection"]


class Connection:
    """A channel to a server. Raises `memplan.errors` for what servers and networks do."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout: float,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """Nothing is sent before the first call. Raises ValueError for impossible arguments, and
        what `open_channel` raises."""
        if not timeout > 0:
            raise ValueError(f"timeout must be seconds above 0, not {timeout}")
        self.target = endpoint.target
        self._timeout = timeout
        self._channel = open_channel(endpoint, options)
        stub: Any = planner_pb2_grpc.MemoryPlannerStub  # generated: it has no annotations
        self._stub = stub(self._channel)

    def close(self) -> None:
        """Close the channel; calls under way fail with CancelledError."""
        self._channel.close()

    def call(self, method: str, request: object, timeout: float | None) -> Any:
        """The answer. `timeout`: seconds; None: the connection's own."""
        message = to_message(request)
        try:
            answer = getattr(self._stub, method)(message, timeout=self._seconds(timeout))
        except grpc.RpcError as error:
            raise to_error(error, method) from error
        return to_answer(answer)

    def stream(
        self, method: str, request: object, timeout: float | None
    ) -> Generator[Any, None, None]:
        """The answers as they come. Closing the generator cancels the call."""
        call = getattr(self._stub, method)(to_message(request), timeout=self._seconds(timeout))
        try:
            for answer in call:
                yield to_answer(answer)
        except grpc.RpcError as error:
            raise to_error(error, method) from error
        finally:
            call.cancel()

    def pages(self, method: str, request: Any, field: str, timeout: float | None) -> Iterator[Any]:
        """The entries of `field` of every page, fetched as needed; `timeout` is for each page."""
        while True:
            answer = self.call(method, request, timeout)
            yield from getattr(answer, field)
            if not answer.next_page_token:
                return
            request = replace(request, page_token=answer.next_page_token)

    def measuring(self, timeout: float | None, on_top: timedelta) -> float:
        """Seconds that a call may take which measures for `on_top` besides."""
        return self._timeout + on_top.total_seconds() if timeout is None else timeout

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout
