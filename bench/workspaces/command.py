"""The command line of `bench/cudnn_workspaces.py`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from memplan.cli.options import job_options
from memplan.cli.request import assemble
from memplan.errors import JobFileError
from memplan.plain import to_dict
from memplan.types import EstimateMemoryRequest, GpuType, TrainingJob
from memplan_server.errors import InvalidJob, MemplanError, UnknownName
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import normalize
from memplan_server.measure.child import in_child
from memplan_server.measure.compare import check_cuda, gpu_type_of
from memplan_server.simulate import worker
from memplan_server.timeline import Convolution, Timeline
from memplan_server.validation import check
from reporting.markdown import mib, table
from reporting.predictions import Traced
from workspaces.backend import CudnnError, Library
from workspaces.comparison import Call, Compared, calls, compare, peak_reserved_bytes
from workspaces.devices import properties
from workspaces.heuristics import Choice, Heuristics
from workspaces.sensitivity import sensitivity
from workspaces.text import rows_table, shares, verdict

__all__ = ["main"]

FAILURE, BAD_REQUEST = 1, 2
_JOB_FILES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Where the figures of a job come from."""

    job: TrainingJob
    gpu_type: GpuType
    heuristics: Heuristics | None
    """None: cuDNN cannot be asked here, only measured."""
    measured: Mapping[Call, int | None] = field(default_factory=dict)
    measured_with: str = ""
    """cuDNN's version on the GPU."""

    def choices(self, convolution: Convolution, samples: int) -> tuple[Choice, ...]:
        """cuDNN's proposals, or none."""
        return self.heuristics.choices(convolution, samples) if self.heuristics else ()


def main(arguments: Sequence[str]) -> int:
    """Print; 0, 1 where cuDNN or the job cannot be asked, 2 for a wrong request."""
    try:
        command.main(list(arguments), "cudnn_workspaces.py", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return BAD_REQUEST
    except (JobFileError, InvalidJob, UnknownName) as error:
        return _complaint(error, BAD_REQUEST)
    except MemplanError as error:
        return _complaint(error, FAILURE)
    return 0


def _complaint(error: Exception, code: int) -> int:
    print(f"cudnn_workspaces.py: {error}", file=sys.stderr)
    return code


def _numbers(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part]
    except ValueError:
        numbers = [0]
    if min(numbers, default=1) < 1:
        raise click.BadParameter(f"{text!r} is not like 8,32,128.")
    return numbers


@click.command(no_args_is_help=True)
@job_options
@click.option("--gpu", "gpu_type", default="", metavar="NAME", help="GPU type to ask about.")
@click.option("--batch-sizes", default="", callback=_numbers, metavar="N,N", help="8,32,128.")
@click.option(
    "--cudnn",
    type=click.Path(path_type=Path),
    envvar="MEMPLAN_CUDNN",
    show_envvar=True,
    metavar="FOLDER",
    help="Where cuDNN is. Default: where the loader finds it.",
)
@click.option("--rows", type=int, metavar="N", help="Convolutions to show. Default: all.")
@click.option("--json", "into", type=click.Path(path_type=Path), help="Append all of it there.")
@click.option("--measure", is_flag=True, help="Run the convolutions on this machine's GPU.")
@click.option("--sensitivity", "vary", is_flag=True, help="Vary what cuDNN is told about the GPU.")
def command(
    gpu_type: str,
    batch_sizes: list[int],
    cudnn: Path | None,
    rows: int | None,
    into: Path | None,
    measure: bool,
    vary: bool,
    **options: Any,
) -> None:
    """Compare the workspaces of a job's convolutions."""
    job = _job(options, batch_sizes)
    if measure:
        check_cuda()
    target = _gpu_type(gpu_type, measure)
    described = _described(cudnn) if measure and not gpu_type else None
    heuristics = _heuristics(cudnn, target, described, needed=not measure or vary)
    worker.initialize()
    traced = Traced()
    sizes = batch_sizes or [job.micro_batch_size]
    timelines = {n: traced.get(replace(job, micro_batch_size=n), target) for n in sizes}
    asked = Asked(job=job, gpu_type=target, heuristics=heuristics)
    if measure:
        asked = _measured(asked, timelines)
    for batch_size, timeline in timelines.items():
        _report(asked, batch_size, timeline, rows, into)
    if vary and heuristics is not None:
        _print_sensitivity(heuristics, timelines)


def _job(options: dict[str, Any], batch_sizes: Sequence[int]) -> TrainingJob:
    """The job described, checked, with its defaults written out; at the first batch size."""
    model = options.get("model") or ""
    if Path(model).suffix in _JOB_FILES and not options.get("file"):
        options = {**options, "model": None, "file": model}
    job = assemble(options).request.job
    if batch_sizes:
        job = replace(job, micro_batch_size=batch_sizes[0])
    check(EstimateMemoryRequest(job=job))
    return normalize(job)


def _gpu_type(name: str, measure: bool) -> GpuType:
    catalog = GpuCatalog.load()
    if name:
        return catalog.get(name)
    if not measure:
        raise click.UsageError("Which GPU? --gpu names it; `memplan gpus` lists them.")
    return gpu_type_of(in_child("memplan_server.measure.cuda:describe"), catalog)


def _described(folder: Path | None) -> dict[str, Any] | None:
    """What cuDNN says of the GPU that is there; None where it cannot."""
    try:
        found: dict[str, Any] = in_child("workspaces.running:describe", folder)
    except MemplanError as error:
        print(f"The GPU is described from the catalog: {error}", file=sys.stderr)
        return None
    return found


def _heuristics(
    folder: Path | None, gpu_type: GpuType, described: Mapping[str, Any] | None, *, needed: bool
) -> Heuristics | None:
    """None where cuDNN cannot be asked and need not be."""
    try:
        return Heuristics(Library.load(folder), described or properties(gpu_type))
    except CudnnError as error:
        if needed:
            raise
        print(f"Only measured: {error}", file=sys.stderr)
        return None


def _measured(asked: Asked, timelines: Mapping[int, Timeline]) -> Asked:
    wanted = list(dict.fromkeys(c for n, timeline in timelines.items() for c in calls(timeline, n)))
    found = in_child("workspaces.running:measure", asked.job, wanted)
    measured = dict(zip(wanted, found.workspaces, strict=True))
    return replace(asked, measured=measured, measured_with=found.cudnn)


def _report(
    asked: Asked, batch_size: int, timeline: Timeline, most: int | None, into: Path | None
) -> None:
    rows = compare(calls(timeline, batch_size), asked.gpu_type, asked.choices, asked.measured)
    peaks = _peaks(asked, batch_size, timeline, rows)
    name = asked.job.model.catalog.name if asked.job.model.catalog else "the job"
    version = asked.heuristics.library.version if asked.heuristics else ""
    ran = f", measured with cuDNN {asked.measured_with}" if asked.measured_with else ""
    print(
        f"\n{name}, batch {batch_size}, {asked.job.precision}, {asked.gpu_type.name}, "
        f"cuDNN {version or 'not asked'}{ran}: {len(rows)} different convolutions, MiB\n"
    )
    if rows:
        print(rows_table(rows[:most]))
        print(f"\n{verdict(rows)}")
    if rows and asked.heuristics is not None:
        print(shares(rows))
    print("peak reserved MiB: " + ", ".join(f"{what} {mib(n)}" for what, n in peaks.items()))
    if into is not None:
        _append(into, asked, batch_size, version, rows, peaks)


def _peaks(
    asked: Asked, batch_size: int, timeline: Timeline, rows: Sequence[Compared]
) -> dict[str, int]:
    """Peak reserved bytes of the replay, by where the workspaces are from."""
    ways: dict[str, Callable[[Compared], int | None]] = {
        "ours": lambda row: row.ours,
        "first": lambda row: row.first,
        "largest of ten": lambda row: row.most,
        "measured": lambda row: row.measured,
    }
    peaks = {}
    for way, of in ways.items():
        sizes = {row.call: n for row in rows if (n := of(row)) is not None}
        if len(sizes) == len(rows):
            peaks[way] = peak_reserved_bytes(
                timeline, batch_size, asked.gpu_type, sizes, asked.job.allocator
            )
    return peaks


def _append(
    into: Path,
    asked: Asked,
    batch_size: int,
    version: str,
    rows: Sequence[Compared],
    peaks: Mapping[str, int],
) -> None:
    job = replace(asked.job, micro_batch_size=batch_size)
    line = {
        "job": to_dict(job, defaults=False),
        "gpu_type": asked.gpu_type.name,
        "cudnn": version,
        "gpu_as_told": dict(asked.heuristics.gpu) if asked.heuristics else {},
        "measured_with_cudnn": asked.measured_with,
        "peak_reserved_bytes": peaks,
        "convolutions": [row.to_dict() for row in rows],
    }
    with into.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _print_sensitivity(heuristics: Heuristics, timelines: Mapping[int, Timeline]) -> None:
    wanted: Counter[Call] = Counter()
    for batch_size, timeline in timelines.items():
        wanted.update(calls(timeline, batch_size))
    changed = list(sensitivity(heuristics.library, heuristics.gpu, wanted))
    lines = [[c.figure, str(c.value), str(c.first), str(c.most), str(c.calls)] for c in changed]
    print("\nCalls with other workspaces when one figure is another:\n")
    print(table(["figure", "other value", "first", "largest of ten", "of"], lines))
