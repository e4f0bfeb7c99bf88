"""A function run in a fresh process, which may have to wait for its turn.

    child = Child("memplan_server.measure.run:run", request, gated=True)
    child.ready(timeout_s=120)          # prepared, waiting
    child.go()
    result = child.result(timeout_s=60)

Each CUDA run needs a process of its own: its context is part of what is measured, and an error on
the device ends all use of it. Imports no torch, so the parent stays without.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from memplan_server.errors import MemplanError, TimeLimitExceeded, WorkerFailure

__all__ = ["Child", "in_child"]

_READY, _RETURNED, _RAISED = "ready", "returned", "raised"
_WAIT_FOR_END = 10.0


def in_child(function: str, *arguments: Any, timeout_s: float | None = None) -> Any:
    """The result of `module:function` in a process of its own. Raises as `Child.result` does."""
    with Child(function, *arguments).ended() as child:
        return child.result(timeout_s)


class Child:
    """A started process. `function` is `module:name`; arguments and result are pickled.

    A gated function is called with one more argument, `wait`: it calls `wait()` when it is
    prepared, which returns when `go` is called here.
    """

    def __init__(self, function: str, *arguments: Any, gated: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_main, args=(theirs, function, arguments, gated), daemon=True
        )
        self._process.start()
        theirs.close()
        self._early: tuple[str, Any] | None = None

    def ready(self, timeout_s: float | None = None) -> None:
        """Wait until it waits; what it ends with instead is kept for `result`."""
        message = self._receive(timeout_s)
        if message[0] != _READY:
            self._early = message

    def go(self) -> None:
        """Let it go on."""
        with contextlib.suppress(OSError):  # it has ended, which `result` tells
            self._connection.send(_READY)

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def result(self, timeout_s: float | None = None) -> Any:
        """What the function returned.

        Raises what it raised of `memplan_server.errors`, `WorkerFailure` for anything else and for
        a process that died, and `TimeLimitExceeded`.
        """
        kind, value = self._early or self._receive(timeout_s)
        if kind == _RAISED:
            raise value
        assert kind == _RETURNED
        return value

    def _receive(self, timeout_s: float | None) -> tuple[str, Any]:
        if not self._connection.poll(timeout_s):
            raise TimeLimitExceeded(f"not done within {timeout_s:g} s")
        try:
            message: tuple[str, Any] = self._connection.recv()
        except EOFError:
            self._process.join(_WAIT_FOR_END)
            code = self._process.exitcode
            raise WorkerFailure(f"the process ended with exit code {code}") from None
        return message

    @contextmanager
    def ended(self) -> Iterator[Child]:
        """At the end of the block the process has ended, by force where it must be."""
        try:
            yield self
            self._process.join(_WAIT_FOR_END)
        finally:
            self._process.kill()
            self._process.join()
            self._connection.close()


def _main(connection: Connection, function: str, arguments: tuple[Any, ...], gated: bool) -> None:
    module, _, name = function.partition(":")
    try:
        called: Callable[..., Any] = getattr(importlib.import_module(module), name)
        wait = (_waiting(connection),) if gated else ()
        connection.send((_RETURNED, called(*arguments, *wait)))
    except MemplanError as error:
        connection.send((_RAISED, error))
    except Exception:
        connection.send((_RAISED, WorkerFailure(traceback.format_exc())))


def _waiting(connection: Connection) -> Callable[[], None]:
    def wait() -> None:
        connection.send((_READY, None))
        connection.recv()

    return wait
