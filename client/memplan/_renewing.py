"""A channel that is made anew when the files it was made from change, with a token in each call.

gRPC's Python client takes certificates once for each channel. So a new channel takes the place of
the old one, on which calls under way end in peace.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from memplan._secrets import Certificates, Token

__all__ = ["RenewingChannel"]

Metadata = tuple[tuple[str, str], ...]


class _Generation:
    """One gRPC channel, its methods, and how many calls it carries."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.methods: dict[str, Any] = {}
        self.calls = 0


class RenewingChannel:
    """What a generated stub needs of a grpc.Channel. Safe to use from several threads."""

    def __init__(
        self,
        opened: Callable[[], Any],
        token: Token | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """`opened` makes a gRPC channel of what `certificates` holds at the time."""
        self._opened = opened
        self._token = token
        self._certificates = certificates
        self._lock = threading.Lock()
        self._now = _Generation(opened())
        self._before: list[_Generation] = []

    def unary_unary(self, path: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """A method with one answer; as on grpc.Channel, called with a request and `timeout`."""

        def call(request: Any, *, timeout: float | None, metadata: Metadata = ()) -> Any:
            with self._in_use() as generation:
                method = _method(generation, "unary_unary", path, args, kwargs)
                return method(request, timeout=timeout, metadata=self._with_token(metadata))

        return call

    def unary_stream(self, path: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """A method with a stream of answers; it keeps its channel until the stream has ended."""

        def call(request: Any, *, timeout: float | None, metadata: Metadata = ()) -> Any:
            with self._in_use() as generation:
                method = _method(generation, "unary_stream", path, args, kwargs)
                stream = method(request, timeout=timeout, metadata=self._with_token(metadata))
                self._begin(generation)
                stream.add_done_callback(lambda _: self._end(generation))
                return stream

        return call

    def close(self) -> None:
        """Close everything; calls under way end as cancelled."""
        with self._lock:
            every = (*self._before, self._now)
            self._before.clear()
        for generation in every:  # without the lock, which the end of a stream takes
            generation.channel.close()

    @contextmanager
    def _in_use(self) -> Iterator[_Generation]:
        with self._lock:
            self._renew()
            generation = self._now
            generation.calls += 1
        try:
            yield generation
        finally:
            self._end(generation)

    def _renew(self) -> None:
        """Take the next generation where files have changed; close those without calls."""
        if self._certificates is not None and self._certificates.renewed():
            self._before.append(self._now)
            self._now = _Generation(self._opened())
        # Not when its last call ends: that is told by a thread of the channel itself.
        for generation in [g for g in self._before if not g.calls]:
            generation.channel.close()
            self._before.remove(generation)

    def _begin(self, generation: _Generation) -> None:
        with self._lock:
            generation.calls += 1

    def _end(self, generation: _Generation) -> None:
        with self._lock:
            generation.calls -= 1

    def _with_token(self, metadata: Metadata) -> Metadata:
        return metadata if self._token is None else (*metadata, *self._token.metadata())


def _method(generation: _Generation, kind: str, path: str, args: Any, kwargs: Any) -> Any:
    """The method on the channel of a generation, made once."""
    found = generation.methods.get(path)
    if found is None:
        found = generation.methods[path] = getattr(generation.channel, kind)(path, *args, **kwargs)
    return found
