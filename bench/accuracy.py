"""Estimates against public measurements.

    python bench/accuracy.py DIR [--only milabench,timm-a100,brackets] [--limit N] [--csv FILE]

Scores driver-used bytes (nvidia-smi's figure: what the process uses and what the driver keeps for
itself, total minus usable of the catalog). The tables hold neither allocated nor reserved bytes.
Beside it stand the same reserved bytes with the one constant that suits the table best, and
PyTorch's fake-tensor peak with its own best constant. Models that cannot be estimated are listed.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import measured
import peers

from memplan.types import GpuType, TrainingJob
from memplan_server.errors import MemplanError
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.libraries import capability, kernel_class
from memplan_server.planning import estimate_memory
from memplan_server.planning.probe import Probe
from memplan_server.simulate import worker
from memplan_server.timeline import Timeline

Measured = TypeVar("Measured", measured.Row, measured.Bracket)

LARGEST_PARAMETERS = 300_000_000
"""Larger models of the A100 table are left out, as its description says."""


class Traced:
    """Timelines made in this process, each once for all GPUs and batch sizes it holds for."""

    def __init__(self) -> None:
        self._made: dict[str, list[Timeline]] = {}

    def get(self, job: TrainingJob, gpu_type: GpuType) -> Timeline:
        gpu = kernel_class(capability(gpu_type))
        known = self._made.setdefault(repr(replace(job, micro_batch_size=0)), [])
        for timeline in known:
            right_size = timeline.affine or job.micro_batch_size in timeline.traced_batch_sizes
            if gpu in timeline.kernel_classes and right_size:
                return timeline
        known.append(Timeline.from_bytes(worker.trace(job, gpu)))
        return known[-1]


COLUMNS = (
    "table",
    "group",
    "gpu_type",
    "batch_size",
    "measured_bytes",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "driver_used_bytes",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A measurement and what was predicted for it; bytes."""

    row: measured.Row
    allocated: int
    reserved: int
    driver_used: int
    fake_tensor: int | None
    within_bounds: bool


def main() -> None:
    """Read the tables, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", default="milabench,timm-a100,brackets")
    parser.add_argument("--limit", type=int, default=0, help="models per table; 0 is all")
    parser.add_argument("--csv", type=Path, help="write every prediction there")
    options = parser.parse_args()
    worker.initialize()
    catalog, timelines, failures = GpuCatalog.load(), Traced(), {}
    tables = options.only.split(",")
    rows = [r for r in measured.rows(options.directory) if r.table in tables]
    scored = _score(_limited(rows, options.limit), catalog, timelines, failures)
    for table in sorted({s.row.table for s in scored}):
        _report_table(table, [s for s in scored if s.row.table == table])
    if "brackets" in tables:
        pairs = _limited(list(measured.brackets(options.directory)), options.limit)
        _report_brackets(pairs, catalog, failures)
    for group, reason in sorted(failures.items()):
        print(f"no estimate: {group}: {reason}")
    if options.csv:
        _write(options.csv, scored)


def _limited(rows: Sequence[Measured], limit: int) -> list[Measured]:
    groups = list(dict.fromkeys(r.group for r in rows))
    step = max(1, len(groups) // limit) if limit else 1
    chosen = set(groups[::step])
    return [r for r in rows if r.group in chosen]


def _score(
    rows: Iterable[measured.Row],
    catalog: GpuCatalog,
    timelines: Traced,
    failures: dict[str, str],
) -> list[Scored]:
    scored = []
    for row in rows:
        if row.group in failures:
            continue
        gpu_type = catalog.get(row.gpu_type)
        try:
            estimate = estimate_memory(timelines, row.job, gpu_type)
        except MemplanError as error:
            failures[row.group] = str(error)
            continue
        if row.table == "timm-a100" and estimate.model_state.parameter_count > LARGEST_PARAMETERS:
            continue
        kept = gpu_type.total_bytes - gpu_type.usable_bytes
        fake = row.fake_tensor_bytes
        if fake is None:
            fake = peers.fake_tensor_peak_bytes(row.job)
        scored.append(
            Scored(
                row=row,
                allocated=estimate.peak_allocated_bytes,
                reserved=estimate.peak_reserved_bytes,
                driver_used=estimate.device_used_bytes + kept,
                fake_tensor=fake,
                within_bounds=row.driver_used_bytes <= estimate.upper_bound_bytes + kept,
            )
        )
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return scored


def _report_table(table: str, scored: list[Scored]) -> None:
    print(f"\n{table}: driver-used, {len(scored)} rows")
    print(f"  {'':36} {'median':>8} {'mean':>8} {'p90':>8} {'under-predicted':>16}")
    groups: dict[tuple[str, str], list[Scored]] = defaultdict(list)
    for s in scored:
        groups[(s.row.group, s.row.gpu_type)].append(s)
    if len(groups) <= 12:
        for (group, gpu_type), some in groups.items():
            _line(f"{group} {gpu_type}", [s.driver_used for s in some], some)
            at16 = [s for s in some if s.row.job.micro_batch_size >= 16]
            worst = max(abs(s.driver_used / s.row.driver_used_bytes - 1) for s in at16)
            print(f"    worst at batch >= 16: {worst:.2%}")
    _line("all", [s.driver_used for s in scored], scored)
    _line("reserved + one constant", _with_constant([s.reserved for s in scored], scored), scored)
    fakes = [s for s in scored if s.fake_tensor is not None]
    if fakes:
        values = _with_constant([s.fake_tensor or 0 for s in fakes], fakes)
        _line("fake tensor + one constant", values, fakes)
    print(f"  upper bound holds for {sum(s.within_bounds for s in scored) / len(scored):.1%}")


def _with_constant(values: list[int], scored: list[Scored]) -> list[int]:
    """Each GPU type's rows shifted by the constant that leaves the smallest median difference."""
    shift = {
        gpu_type: int(
            statistics.median(
                s.row.driver_used_bytes - v
                for v, s in zip(values, scored, strict=True)
                if s.row.gpu_type == gpu_type
            )
        )
        for gpu_type in {s.row.gpu_type for s in scored}
    }
    return [v + shift[s.row.gpu_type] for v, s in zip(values, scored, strict=True)]


def _line(name: str, predicted: list[int], scored: list[Scored]) -> None:
    errors = [p / s.row.driver_used_bytes - 1 for p, s in zip(predicted, scored, strict=True)]
    sizes = sorted(abs(e) for e in errors)
    p90 = sizes[min(len(sizes) - 1, int(len(sizes) * 0.9))]
    under = sum(e < 0 for e in errors) / len(errors)
    print(
        f"  {name:36} {statistics.median(sizes):8.2%} {statistics.mean(sizes):8.2%} "
        f"{p90:8.2%} {under:16.0%}"
    )


def _report_brackets(
    pairs: list[measured.Bracket], catalog: GpuCatalog, failures: dict[str, str]
) -> None:
    """Each pair asks two questions: does the one fit, and does the other not."""
    timelines, right, asked = Traced(), 0, 0
    for pair in pairs:
        gpu_type = catalog.get(pair.gpu_type)
        probe = Probe(timelines, pair.job, gpu_type)
        try:
            answers = [probe.fits(pair.fits_batch_size, gpu_type.usable_bytes)]
            if pair.failed_batch_size:
                answers.append(not probe.fits(pair.failed_batch_size, gpu_type.usable_bytes))
        except MemplanError as error:
            failures[f"{pair.group} ({pair.job.memory_format.value})"] = str(error)
            continue
        right, asked = right + sum(answers), asked + len(answers)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"\nbrackets: fits / does not fit right for {right} of {asked} ({right / asked:.1%})")


def _write(path: Path, scored: list[Scored]) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(COLUMNS)
        for s in scored:
            out.writerow(
                [
                    s.row.table,
                    s.row.group,
                    s.row.gpu_type,
                    s.row.job.micro_batch_size,
                    s.row.driver_used_bytes,
                    s.allocated,
                    s.reserved,
                    s.driver_used,
                ]
            )


if __name__ == "__main__":
    main()
