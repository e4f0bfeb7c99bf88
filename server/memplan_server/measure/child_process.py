"""The inside of a process that `child` started. Imports no torch before the function does."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection
from typing import Any

from memplan_server.errors import MemplanError, WorkerFailure
from memplan_server.worker_process import prefer_for_oom_kill

__all__ = ["STARTED", "Answer", "Kind", "Start", "main"]

STARTED = time.monotonic()
"""When this process began, all but."""


class Kind(Enum):
    """What an answer says."""

    READY = "ready"
    REPORTED = "reported"
    RETURNED = "returned"
    RAISED = "raised"


@dataclass(frozen=True, slots=True)
class Start:
    """What to do: the first message."""

    function: str
    arguments: tuple[Any, ...]
    gated: bool
    reporting: bool
    memory_limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A message back."""

    kind: Kind
    value: Any = None


def main(arguments: list[str]) -> None:
    """Run one function. Arguments: file descriptors of the connection and of the parent's pipe."""
    descriptor, watched = map(int, arguments)
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()
    prefer_for_oom_kill()
    # Threads of torch that spin while they wait make a run ten times slower on cores that others
    # use too. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with Connection(descriptor) as connection, contextlib.suppress(EOFError, ConnectionError):
        start: Start = connection.recv()
        connection.send(_answer(connection, start))


def _end_with_parent(watched: int) -> None:
    """The kernel's own notice (PR_SET_PDEATHSIG) is about the thread that started the process,
    which may well end before the parent does."""
    os.read(watched, 1)
    os.killpg(0, signal.SIGKILL)


def _answer(connection: Connection, start: Start) -> Answer:
    """What the function returns or raises."""
    module, _, name = start.function.partition(":")
    further: list[Callable[..., None]] = []
    if start.gated:
        further.append(_waiting(connection))
    if start.reporting:
        further.append(lambda value: connection.send(Answer(Kind.REPORTED, value)))
    try:
        if start.memory_limit_bytes is not None:
            limit = (start.memory_limit_bytes, start.memory_limit_bytes)
            resource.setrlimit(resource.RLIMIT_DATA, limit)
        called: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return Answer(Kind.RETURNED, called(*start.arguments, *further))
    except MemplanError as error:
        if error.__cause__ is not None:  # which does not cross
            error.add_note("".join(traceback.format_exception(error.__cause__)))
        return Answer(Kind.RAISED, error)
    except Exception:
        return Answer(Kind.RAISED, WorkerFailure(traceback.format_exc()))


def _waiting(connection: Connection) -> Callable[[], None]:
    def wait() -> None:
        connection.send(Answer(Kind.READY))
        connection.recv()

    return wait
