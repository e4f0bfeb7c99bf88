"""Measures the matrix on this machine's GPU: one JSON line a job, as soon as it is done.

    PYTHONPATH=client:server python bench/corpus/measure.py --out corpus [--only REGEX]
        [--time-limit SECONDS] [--done FOLDER] [--device cpu]

Each job runs in a process of its own; while one is on the GPU the next are prepared. Jobs that have
a measured line in --out or --done are passed over, so a run can be continued. A job that fails has
a line too, with the error, of which stderr has the whole, and is tried again. When the time is up,
what is under way is given up and has no line. `--device cpu` is a dry run with batches of two and a
single step, to see that everything works.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from corpus.lines import Line, read_lines
from corpus.matrix import Entry, matrix
from memplan.types import GpuType, TrainingJob
from memplan_server.errors import UnknownName
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.measure.child import WITHOUT_GPU, Child, in_child
from memplan_server.measure.compare import NoCudaDevice, check_cuda, gpu_type_of
from memplan_server.measure.driver import Driver
from memplan_server.measure.measurement import Gpu, Measurement
from memplan_server.measure.request import Request

PREPARE_S, RUN_S = 180.0, 90.0
DRY_GPU_TYPE = "nvidia-t4"
DRY_BATCH_SIZE = 2
MOST_AHEAD = 8
CORES_EACH = 2
GIVEN_BACK_WITHIN_S = 10.0
GIVEN_BACK_BYTES = 64 << 20
"""A GPU's memory is back when no more than this is in use beyond what was at first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What is measured on."""

    type: str
    gpu: Gpu
    gpu_type: GpuType
    catalog_name: str | None
    driver: Driver | None = None
    """Kept open: without any program that uses the GPU the driver may unload its state, and take
    seconds to load it for each job."""
    used_bytes: int = 0
    """In use on the GPU at first."""

    def await_memory(self) -> None:
        """The driver takes a moment to clear up after a process."""
        deadline = time.monotonic() + GIVEN_BACK_WITHIN_S
        while self.driver is not None and time.monotonic() < deadline:
            if self.driver.usage().driver_used_bytes <= self.used_bytes + GIVEN_BACK_BYTES:
                return
            time.sleep(0.05)

    @property
    def file_name(self) -> str:
        """Of its lines."""
        name = self.catalog_name or re.sub(r"[^a-z0-9.]+", "-", self.gpu.name.lower())
        return f"{name}.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A job whose process waits for the GPU, or the reason why there is none."""

    entry: Entry
    job: TrainingJob
    child: Child | None
    error: str = ""


def main(arguments: Sequence[str]) -> int:
    """Measure; 0, or 3 without a GPU."""
    options = _parser().parse_args(arguments)
    deadline = time.monotonic() + options.time_limit
    try:
        device = _device(options.device)
    except NoCudaDevice as error:
        print(f"measure.py: {error}", file=sys.stderr)
        return 3
    options.out.mkdir(parents=True, exist_ok=True)
    done = _done([options.out, *options.done], device)
    wanted = [e for e in matrix() if re.search(options.only, e.name) and e.name not in done]
    print(f"{device.gpu.name}: {len(wanted)} jobs to measure, {len(done)} are done", flush=True)
    path = options.out / device.file_name
    for number, line in enumerate(_measure(wanted, device, options.ahead, deadline), 1):
        with path.open("a") as file:
            file.write(line.to_json() + "\n")
        print(f"{number}/{len(wanted)} {line.name} {_outcome(line)}", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", default="", metavar="REGEX", help="jobs whose name has this")
    parser.add_argument("--time-limit", type=float, default=float("inf"), metavar="SECONDS")
    parser.add_argument(
        "--done", type=Path, action="append", default=[], metavar="FOLDER", help="further lines"
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    ahead = max(1, min(MOST_AHEAD, (os.cpu_count() or 1) // CORES_EACH))
    parser.add_argument("--ahead", type=int, default=ahead, help="jobs prepared meanwhile")
    return parser


def _device(kind: str) -> Device:
    """Raises NoCudaDevice."""
    catalog = GpuCatalog.load()
    if kind == "cpu":
        gpu_type = catalog.get(DRY_GPU_TYPE)
        return Device(type=kind, gpu=Gpu(name="cpu"), gpu_type=gpu_type, catalog_name=None)
    driver = Driver.first_visible()
    used = driver.usage().driver_used_bytes if driver else 0
    check_cuda()
    gpu: Gpu = in_child("memplan_server.measure.cuda:describe")
    gpu_type = gpu_type_of(gpu, catalog)
    try:
        name = catalog.get(gpu.name).name
    except UnknownName:
        name = None
    return Device(
        type=kind, gpu=gpu, gpu_type=gpu_type, catalog_name=name, driver=driver, used_bytes=used
    )


def _done(folders: Sequence[Path], device: Device) -> set[str]:
    """Names that have a measurement on this device."""
    return {
        line.name
        for folder in folders
        for line in read_lines(folder)
        if line.measured is not None and line.measured.gpu.name == device.gpu.name
    }


def _measure(
    entries: Sequence[Entry], device: Device, ahead: int, deadline: float
) -> Iterator[Line]:
    """One line after the other, until all are done or there is no time for another."""
    waiting = deque(entries)
    under_way: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(ahead) as pool:
        while waiting or under_way:
            while waiting and len(under_way) < ahead and time.monotonic() < deadline:
                under_way.append(pool.submit(_prepare, waiting.popleft(), device, deadline))
            if not under_way:
                return
            prepared = under_way.popleft().result()
            if time.monotonic() >= deadline:
                _give_up([prepared, *(future.result() for future in under_way)])
                return
            line = _finish(prepared, device, deadline)
            if line.measured is not None or time.monotonic() < deadline:
                yield line


def _give_up(prepared: Sequence[Prepared]) -> None:
    with ExitStack() as stack:
        for one in prepared:
            if one.child is not None:
                one.child.kill()
                stack.enter_context(one.child.ended())


def _prepare(entry: Entry, device: Device, deadline: float) -> Prepared:
    """Find the batch size, start the process and wait until it waits."""
    job, child = entry.job, None
    try:
        if entry.near_capacity:
            job = replace(job, micro_batch_size=_near(job, device.gpu_type, deadline))
        if device.type == "cpu":
            job = replace(job, micro_batch_size=min(job.micro_batch_size, DRY_BATCH_SIZE))
        child = Child("memplan_server.measure.run:run", _request(entry, job, device), gated=True)
        child.ready(_within(PREPARE_S, deadline))
    except Exception as error:  # whatever one job does, the next are measured
        if child is not None:
            child.kill()
        return Prepared(entry=entry, job=job, child=child, error=_brief(entry, error))
    return Prepared(entry=entry, job=job, child=child)


def _near(job: TrainingJob, gpu_type: GpuType, deadline: float) -> int:
    """The largest batch size that the estimate calls safe."""
    limit = _within(PREPARE_S, deadline)
    function = "corpus.near:batch_size"
    size: int = in_child(function, job, gpu_type, timeout_s=limit, environment=WITHOUT_GPU)
    return size


def _within(seconds: float, deadline: float) -> float:
    """So long, or up to the deadline."""
    return max(0.0, min(seconds, deadline - time.monotonic()))


def _request(entry: Entry, job: TrainingJob, device: Device) -> Request:
    """Fewer steps where each takes long."""
    if device.type == "cpu":
        return Request(job=job, device_type="cpu", warmup_steps=0, steps=1)
    steps = 2 if entry.near_capacity else 4
    return Request(job=job, device_type="cuda", warmup_steps=2, steps=steps)


def _finish(prepared: Prepared, device: Device, deadline: float) -> Line:
    measured, error = None, prepared.error
    if prepared.child is not None:
        with prepared.child.ended() as child:
            if not error:
                device.await_memory()
                measured, error = _run(prepared.entry, child, _within(RUN_S, deadline))
    return Line(
        name=prepared.entry.name,
        family=prepared.entry.family,
        job=prepared.job,
        gpu_type=device.catalog_name,
        measured=measured,
        error=error,
    )


def _run(entry: Entry, child: Child, limit_s: float) -> tuple[Measurement | None, str]:
    try:
        child.go()
        return child.result(limit_s).measurement, ""
    except Exception as error:  # whatever one job does, the next are measured
        child.kill()
        return None, _brief(entry, error)


def _brief(entry: Entry, error: Exception) -> str:
    """Its last line, where a traceback says what happened. Stderr gets all of it."""
    said = str(error).strip() or type(error).__name__
    whole = "\n".join([said, *getattr(error, "__notes__", ())])
    print(f"measure.py: {entry.name}: {whole}", file=sys.stderr, flush=True)
    return said.splitlines()[-1]


def _outcome(line: Line) -> str:
    measured = line.measured
    if measured is None:
        return f"FAILED: {line.error}"
    if measured.out_of_memory is not None:
        return "out of memory"
    used = measured.device_used_bytes or measured.peak_allocated_bytes
    return f"batch {line.job.micro_batch_size}, {used / 2**20:,.0f} MiB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
