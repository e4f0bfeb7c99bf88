"""Worker processes that do what must not harm the server: build and trace models.

    workers = Workers(2, metrics=metrics, time_limit_s=120, memory_limit_bytes=8 << 30)
    work = workers.submit("trace", job, (8, 0))
    work.future.result()                    # or what the function raised, or
                                            # TimeLimitExceeded, LimitExceeded, WorkerFailure
    work.cancel()                           # stops it, whatever it is at
    workers.stop()

Every worker has a thread of its own in the server, a process, and a pipe between the two, so that
one that hangs, grows or dies takes nothing with it but its task. A process starts with the first
task and is replaced when it ends. Workers never outlive the server: idle ones see the pipe close,
busy ones are killed by the kernel when their thread ends.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from memplan_server.errors import Cancelled, LimitExceeded, TimeLimitExceeded, WorkerFailure
from memplan_server.metrics import Metrics
from memplan_server.worker_process import Failed, OutOfMemory, Ready, Refused, Returned, Task

__all__ = ["TASKS_MODULE", "Work", "Workers"]

log = logging.getLogger(__name__)

TASKS_MODULE = "memplan_server.simulate.worker"
START_LIMIT_S = 120.0
"""Longest time to import torch and the model libraries; a cold disk takes half a minute."""
STARTER = "import sys; from memplan_server.worker_process import main; main(sys.argv[1:])"
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",  # a worker simulates; it must not take a context on a real GPU
    "HF_HUB_OFFLINE": "1",  # models come from configurations, never from the network
    "OMP_NUM_THREADS": "1",  # nothing is computed
}


class _OutOfMemory(LimitExceeded):
    """A worker wanted more memory than it may take."""


class Work:
    """A task that was submitted."""

    def __init__(self, workers: Workers, task: Task, time_limit_s: float) -> None:
        self.task = task
        self.time_limit_s = time_limit_s
        self.future: Future[Any] = Future()
        self.cancelled = False
        self._workers = workers

    def cancel(self) -> None:
        """Stop it: in the queue, or with its worker. Its future raises Cancelled."""
        self._workers.cancel(self)


class Workers:
    """A fixed number of worker processes and the queue before them."""

    def __init__(
        self,
        count: int,
        *,
        metrics: Metrics,
        time_limit_s: float,
        memory_limit_bytes: int | None,
        prestart: bool = False,
        tasks_module: str = TASKS_MODULE,
    ) -> None:
        """`time_limit_s` holds for each task from the moment a ready worker begins it."""
        self.metrics = metrics
        self.time_limit_s = time_limit_s
        self.memory_limit_bytes = memory_limit_bytes
        self.tasks_module = tasks_module
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = False
        self._seats = [_Seat(self, prestart) for _ in range(count)]
        metrics.tasks_queued.set_function(self._queue.qsize)
        metrics.workers.labels("stopped").inc(count)
        for seat in self._seats:
            seat.start()

    def submit(self, function: str, *arguments: Any, time_limit_s: float | None = None) -> Work:
        """Have `function` of the tasks module called as soon as a worker is free.

        `time_limit_s` is for a task that is no job; by default it has as long as a job.
        """
        work = Work(self, Task(function, arguments), time_limit_s or self.time_limit_s)
        with self._lock:
            if self._stopped:
                work.future.set_exception(Cancelled("The server stops."))
            else:
                self._queue.put(work)
        return work

    def next(self) -> Work | None:
        """The work that comes next; waits for it. None when the workers have stopped."""
        return self._queue.get()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._seats)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def cancel(self, work: Work) -> None:
        """See `Work.cancel`."""
        with self._lock:
            work.cancelled = True
            for seat in self._seats:
                if seat.work is work:
                    seat.kill()

    def begin(self, seat: _Seat, work: Work) -> bool:
        """Note that `seat` is about to perform `work`. False when it was cancelled before."""
        with self._lock:
            if work.cancelled or self._stopped:
                return False
            seat.work = work
            return True

    def end(self, seat: _Seat) -> None:
        """Note that `seat` is done: from now on nobody kills it for its work."""
        with self._lock:
            seat.work = None

    def stop(self) -> None:
        """Kill all workers; what they were at and what waits for them is cancelled."""
        with self._lock:
            self._stopped = True
            for seat in self._seats:
                if seat.work is not None:
                    seat.work.cancelled = True
                seat.kill()
                self._queue.put(None)
        for seat in self._seats:
            seat.join()


class _Seat(threading.Thread):
    """The thread of one worker: starts its process, hands it work, replaces it when it ends."""

    def __init__(self, workers: Workers, prestart: bool) -> None:
        super().__init__(name="memplan-worker", daemon=True)
        self.work: Work | None = None
        self._workers = workers
        self._prestart = prestart
        self._process: _Process | None = None
        self._state = "stopped"

    def run(self) -> None:
        """Perform work until the workers stop."""
        if self._prestart:
            self._try_to_start()
        while (work := self._workers.next()) is not None:
            self._settle(work)
        self._discard("stopped")

    def kill(self) -> None:
        """End the process, if there is one; the thread notices by itself."""
        process = self._process
        if process is not None:
            process.kill()

    def _settle(self, work: Work) -> None:
        """Give the future of `work` its result."""
        try:
            result = self._perform(work)
        except Exception as error:
            work.future.set_exception(error)
        else:
            work.future.set_result(result)

    def _perform(self, work: Work) -> Any:
        """The result of `work`. A worker that ran before gets a fresh one's chance at memory."""
        used = self._process is not None and self._process.alive and self._process.used
        try:
            return self._perform_once(work)
        except _OutOfMemory:
            if not used:
                raise
            return self._perform_once(work)

    def _perform_once(self, work: Work) -> Any:
        if work.cancelled or self._workers.stopped:
            raise Cancelled("The caller went away.")
        process = self._ready_process(work)
        if not self._workers.begin(self, work):
            raise Cancelled("The caller went away.")
        self._enter("busy")
        started = time.monotonic()
        try:
            outcome = process.perform(work.task, work.time_limit_s)
        except TimeoutError:
            self._discard("time_limit")
            limit = f"{work.time_limit_s:g} s"
            raise TimeLimitExceeded(
                f"The simulation of this job was not done in the server's limit of {limit}: raise "
                "its --job-time-limit (MEMPLAN_JOB_TIME_LIMIT), or ask for a smaller model."
            ) from None
        except (EOFError, OSError):
            raise self._lost(work, process) from None
        finally:
            self._workers.end(self)
            self._workers.metrics.simulation_seconds.observe(time.monotonic() - started)
        self._enter("idle")
        return self._value(outcome)

    def _value(self, outcome: object) -> Any:
        """What the outcome means: a value, or an exception."""
        if isinstance(outcome, Returned):
            return outcome.value
        if isinstance(outcome, Refused):
            if outcome.cause:
                log.info("a task was refused because of\n%s", outcome.cause)
            raise outcome.error
        if isinstance(outcome, OutOfMemory):
            self._discard("memory_limit")
            raise _OutOfMemory("The simulation of this job takes more memory than it may here.")
        assert isinstance(outcome, Failed)
        raise WorkerFailure(f"A worker raised what it should not have.\n{outcome.traceback}")

    def _lost(self, work: Work, process: _Process) -> Exception:
        """Why the process of this worker is gone."""
        status = process.wait()
        if work.cancelled:
            self._discard("cancelled")
            return Cancelled("The caller went away.")
        if status == -signal.SIGKILL and _oom_kills() > process.oom_kills:
            self._discard("memory_limit")
            return _OutOfMemory("The simulation of this job takes more memory than there is here.")
        self._discard("died")
        return WorkerFailure(f"A worker process ended with status {status}.")

    def _ready_process(self, work: Work) -> _Process:
        """The process of this worker, started where it is not there."""
        if self._process is not None and not self._process.alive:
            self._discard("died")
        if self._process is None:
            self._start(work)
        assert self._process is not None
        return self._process

    def _start(self, work: Work | None = None) -> None:
        """Start a process and wait until it is ready."""
        self._enter("starting")
        self._process = _Process(self._workers.tasks_module, self._workers.memory_limit_bytes)
        try:
            outcome = self._process.ready()
        except (TimeoutError, EOFError, OSError) as error:
            outcome = Failed(f"It ended or hung before it was ready: {error!r}")
        if isinstance(outcome, Ready):
            self._enter("idle")
            return
        self._discard("start")
        if self._workers.stopped or (work is not None and work.cancelled):
            raise Cancelled("The caller went away.")
        raise WorkerFailure(f"A worker could not start.\n{getattr(outcome, 'traceback', outcome)}")

    def _try_to_start(self) -> None:
        try:
            self._start()
        except Exception:
            log.exception("a worker could not start; it is tried again with the first task")

    def _discard(self, reason: str) -> None:
        """End the process, if there is one."""
        if self._process is None:
            return
        self._process.kill()
        self._process.close()
        self._process = None
        self._enter("stopped")
        if reason != "stopped":
            self._workers.metrics.worker_ends.labels(reason).inc()

    def _enter(self, state: str) -> None:
        """Change the state that the metrics show."""
        self._workers.metrics.workers.labels(self._state).dec()
        self._workers.metrics.workers.labels(state).inc()
        self._state = state


class _Process:
    """One worker process and the server's end of its pipe."""

    def __init__(self, tasks_module: str, memory_limit_bytes: int | None) -> None:
        self.used = False
        self.oom_kills = _oom_kills()
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = self._spawn(theirs, tasks_module, memory_limit_bytes or 0)

    @staticmethod
    def _spawn(theirs: Connection, tasks_module: str, limit: int) -> subprocess.Popen[bytes]:
        arguments = (theirs.fileno(), os.getpid(), tasks_module, limit)
        path = os.pathsep.join(filter(None, sys.path))
        return subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", STARTER, *map(str, arguments)],
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            process_group=0,  # a terminal's Ctrl-C is for the server, which drains first
        )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def ready(self) -> object:
        """Its first message. TimeoutError, or EOFError when it ended instead."""
        return self._receive(START_LIMIT_S)

    def perform(self, task: Task, time_limit_s: float) -> object:
        """What comes of `task`. TimeoutError, or EOFError or OSError when the process ended."""
        self.used = True
        self._pipe.send(task)
        return self._receive(time_limit_s)

    def _receive(self, limit_s: float) -> object:
        if not self._pipe.poll(limit_s):
            raise TimeoutError
        return self._pipe.recv()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def wait(self) -> int:
        """Its exit status; negative for a signal."""
        return self._process.wait()

    def close(self) -> None:
        """Reap the process and close the pipe."""
        self._process.wait()
        self._pipe.close()


def _oom_kills() -> int:
    """Processes that the kernel killed for lack of memory since it started (Linux)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
