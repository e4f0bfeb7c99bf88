"""A function run in a fresh process, which may have to wait for its turn and may tell how it goes.

    child = Child("memplan_server.measure.run:run", request, gated=True)
    child.ready(timeout_s=120)          # prepared, waiting
    child.go()
    result = child.result(timeout_s=60)

Each CUDA run needs a process of its own: its context is part of what is measured, and an error on
the device ends all use of it. Imports no torch, so the parent stays without.

The process leads a process group, which is killed as a whole, and sees by a pipe of its own when
the parent is gone: then it ends itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe
from typing import Any

from memplan_server.errors import TimeLimitExceeded, WorkerFailure
from memplan_server.measure.child_process import Answer, Kind, Start

__all__ = ["WITHOUT_GPU", "Child", "ChildDied", "in_child"]

WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""For a simulation: where there is a GPU, models and PyTorch may do otherwise, or start CUDA."""
_THE_JOB_S = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Variables that change what a job takes: the job says how it is, not the shell of who measures."""

_STARTER = "import sys; from memplan_server.measure.child_process import main; main(sys.argv[1:])"
_WAIT_FOR_END = 10.0


class ChildDied(WorkerFailure):
    """The process ended without an answer."""


def in_child(
    function: str,
    *arguments: Any,
    timeout_s: float | None = None,
    environment: Mapping[str, str | None] | None = None,
) -> Any:
    """The result of `module:function` in a process of its own. Raises as `Child.result` does."""
    with Child(function, *arguments, environment=environment).ended() as child:
        return child.result(timeout_s)


class Child:
    """A started process. `function` is `module:name`; arguments and result are pickled.

    A gated function is called with one more argument, `wait`: it calls `wait()` when it is
    prepared, which returns when `go` is called here. A reporting one is called with `report`, which
    takes anything that can be pickled.
    """

    def __init__(
        self,
        function: str,
        *arguments: Any,
        gated: bool = False,
        reporting: bool = False,
        environment: Mapping[str, str | None] | None = None,
        memory_limit_bytes: int | None = None,
    ) -> None:
        """`environment` is this process's with these changes; None takes a variable away, and those
        that would change what a job takes are not passed on.

        The process may take `memory_limit_bytes`."""
        self._connection, theirs = Pipe()
        watched, self._lifeline = os.pipe()
        try:
            self._process = _spawn(theirs, watched, environment or {})
        finally:
            theirs.close()
            os.close(watched)
        self._early: Answer | None = None
        self._over = False
        with contextlib.suppress(OSError):  # it has ended, which `result` tells
            self._connection.send(Start(function, arguments, gated, reporting, memory_limit_bytes))

    @property
    def pid(self) -> int:
        """Of the process and of its group."""
        return self._process.pid

    def ready(self, timeout_s: float | None = None) -> None:
        """Wait until it waits; what it ends with instead is kept for `result`."""
        answer = self._receive(timeout_s)
        if answer.kind is not Kind.READY:
            self._early = answer

    def go(self) -> None:
        """Let it go on."""
        with contextlib.suppress(OSError):  # it has ended, which `result` tells
            self._connection.send(None)

    def kill(self) -> None:
        """End it now, and what it has started. From any thread."""
        with contextlib.suppress(ProcessLookupError):
            if not self._over:  # afterwards the number may be another process's
                os.killpg(self._process.pid, signal.SIGKILL)

    def result(self, timeout_s: float | None = None) -> Any:
        """What the function returned; reports are passed over.

        Raises what it raised of `memplan_server.errors`, `WorkerFailure` for anything else,
        `ChildDied` for a process that died, and `TimeLimitExceeded`.
        """
        while True:
            kind, value = self.next(timeout_s)
            if kind is Kind.RETURNED:
                return value

    def next(self, timeout_s: float | None = None) -> tuple[Kind, Any]:
        """The next report (REPORTED), or the result (RETURNED). Raises as `result` does."""
        answer, self._early = self._early or self._receive(timeout_s), None
        if answer.kind is Kind.RAISED:
            raise answer.value
        return answer.kind, answer.value

    def _receive(self, timeout_s: float | None) -> Answer:
        try:
            if not self._connection.poll(timeout_s):
                raise TimeLimitExceeded(f"not done within {timeout_s:g} s")
            answer: Answer = self._connection.recv()
        except (EOFError, ConnectionError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_WAIT_FOR_END)
            raise ChildDied(f"the process ended with {_ending(self._process)}") from None
        return answer

    @contextmanager
    def ended(self) -> Iterator[Child]:
        """At the end of the block the process has ended, by force where it must be."""
        try:
            yield self
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_WAIT_FOR_END)
        finally:
            self.kill()
            self._process.wait()
            self._over = True
            self._connection.close()
            os.close(self._lifeline)


def _spawn(
    theirs: Connection, watched: int, changes: Mapping[str, str | None]
) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, sys.path))
    changed = {**os.environ, **dict.fromkeys(_THE_JOB_S), **changes, "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-c", _STARTER, str(theirs.fileno()), str(watched)],
        env={name: value for name, value in changed.items() if value is not None},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno(), watched],
        process_group=0,
    )


def _ending(process: subprocess.Popen[bytes]) -> str:
    code = process.poll()
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
