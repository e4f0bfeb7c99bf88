"""A profile under way, live: what it is at, how far, and how much memory so far."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from memplan.types import ProfileProgress, ProfileStage

__all__ = ["memory", "stage", "watching"]

_STAGES = {
    ProfileStage.QUEUED: "queued",
    ProfileStage.BUILDING: "building the model",
    ProfileStage.WARMING_UP: "warming up",
    ProfileStage.MEASURING: "measuring",
}
_STEPPING = (ProfileStage.WARMING_UP, ProfileStage.MEASURING)


def stage(progress: ProfileProgress) -> str:
    """What it is at: `queued, 2 before it, about 1 min 30 s`, `measuring, step 2 of 3`."""
    parts = [_STAGES.get(progress.stage, "under way")]
    if progress.stage is ProfileStage.QUEUED:
        parts.append(f"{progress.queue_position} before it" if progress.queue_position else "next")
        if progress.expected_wait:
            parts.append(f"about {_duration(progress.expected_wait)}")
    if progress.stage in _STEPPING and progress.step_count:
        parts.append(f"step {progress.step} of {progress.step_count}")
    if progress.micro_batch_size and progress.stage is not ProfileStage.QUEUED:
        parts.append(f"batch {progress.micro_batch_size}")
    return ", ".join(parts)


def memory(progress: ProfileProgress) -> str:
    """The peaks so far: `5.12 GiB allocated, 6.20 GiB reserved`."""
    from memplan.cli.layout import size

    peaks = {
        "allocated": progress.peak_allocated_bytes,
        "reserved": progress.peak_reserved_bytes,
    }
    return ", ".join(f"{size(peak)} {name}" for name, peak in peaks.items() if peak)


def _duration(time: timedelta) -> str:
    minutes, seconds = divmod(max(1, round(time.total_seconds())), 60)
    return " ".join(f"{n} {unit}" for n, unit in ((minutes, "min"), (seconds, "s")) if n)


@contextmanager
def watching() -> Iterator[Callable[[ProfileProgress], None]]:
    """What to call with each progress: moves a bar on stderr, where somebody sees it."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[memory]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("asking", total=None, memory="")

        def show(progress: ProfileProgress) -> None:
            # Without a total the bar pulses: it is not known how long a queue or a model takes.
            total = progress.step_count if progress.stage in _STEPPING else 0
            bar.update(
                task,
                description=stage(progress),
                completed=progress.step,
                total=total or None,
                memory=memory(progress),
            )

        yield show
