"""The inside of a worker process: it gets tasks over a pipe, performs them, answers.

Started by `workers`, one process for each worker. The tasks module has
`initialize(memory_limit_bytes)` and the functions that are asked for by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from memplan_server.errors import MemplanError

__all__ = ["Failed", "OutOfMemory", "Outcome", "Ready", "Refused", "Returned", "Task", "main"]

PR_SET_PDEATHSIG = 1
OOM_SCORE = "500"
TORCH_ALLOCATOR = "DefaultCPUAllocator"
"""Begins the RuntimeError that torch raises where Python would raise MemoryError."""


@dataclass(frozen=True, slots=True)
class Task:
    """A function of the tasks module and what it is called with."""

    function: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """Initialised: the first message of a worker that can take tasks."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What the function returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class Refused:
    """What the function raised for its user."""

    error: MemplanError
    cause: str
    """Traceback of the exception that it was raised from, for the log; empty for none."""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The function wanted more memory than the worker may take."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The function (or the initialisation) raised what it should not have."""

    traceback: str


Outcome = Ready | Returned | Refused | OutOfMemory | Failed


def perform(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    """Call the function; whatever it raises becomes an outcome."""
    try:
        return Returned(function(*arguments))
    except MemplanError as error:
        cause = error.__cause__
        return Refused(error, "".join(traceback.format_exception(cause)) if cause else "")
    except MemoryError:
        return OutOfMemory()
    except Exception as error:
        if TORCH_ALLOCATOR in str(error):
            return OutOfMemory()
        return Failed(traceback.format_exc())


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def prefer_for_oom_kill() -> None:
    """When memory runs short, a worker is to go before the server is (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)


def initialize(module_name: str, memory_limit_bytes: int | None) -> ModuleType:
    """Import the tasks module and let it set itself up."""
    module = importlib.import_module(module_name)
    module.initialize(memory_limit_bytes)
    return module


def serve(connection: Connection, module_name: str, memory_limit_bytes: int | None) -> None:
    """Initialise, say so, then perform tasks until the other end closes."""
    outcome = perform(initialize, (module_name, memory_limit_bytes))
    if not isinstance(outcome, Returned):
        connection.send(outcome)
        return
    connection.send(Ready())
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            task: Task = connection.recv()
            connection.send(perform(getattr(outcome.value, task.function), task.arguments))


def main(arguments: list[str]) -> None:
    """Run one worker. Arguments: the pipe's file descriptor, the server's process id, the tasks
    module, the memory limit in bytes (0 for none)."""
    descriptor, parent, module_name, memory_limit_bytes = arguments
    die_with_parent(int(parent))
    prefer_for_oom_kill()
    with Connection(int(descriptor)) as connection:
        serve(connection, module_name, int(memory_limit_bytes) or None)
