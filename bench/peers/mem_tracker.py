"""PyTorch's own way: MemTracker under FakeTensorMode, on the CPU's kernels.

Source: torch/distributed/_tools/mem_tracker.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch.distributed._tools.mem_tracker import MemTracker

from memplan.types import TrainingJob
from memplan_server import models
from peers.fake import fake_loop

__all__ = ["OverallPeak", "peak_bytes", "peaks_by_batch_size"]


class OverallPeak(MemTracker):
    """Without the peak of each module, which MemTracker looks for in every operator: the same
    overall peak in a fraction of the time."""

    def _update_peak_stats(self, peak_state: Any) -> None:
        modules, self.memory_tracking = self.memory_tracking, _NO_MODULES
        super()._update_peak_stats(peak_state)
        self.memory_tracking = modules


_NO_MODULES = type(MemTracker().memory_tracking)()


def peak_bytes(
    job: TrainingJob, built: models.BuiltModel, kind: type[MemTracker] = MemTracker
) -> int:
    """The tracker's peak of two training steps at the job's micro-batch size."""
    with fake_loop(job, built) as loop, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Module is None")
        tracker = kind()
        tracker.track_external(built.module, loop.optimizer)
        with tracker:
            for _ in range(2):
                loop.step()
                tracker.reset_mod_stats()
        peaks = tracker.get_tracker_snapshot("peak")
    return max(int(peak["Total"]) for peak in peaks.values())


def peaks_by_batch_size(
    job: TrainingJob, built: models.BuiltModel, batch_sizes: Collection[int]
) -> Mapping[int, int]:
    """The peak at the smallest and the largest batch size, and on the line between them."""
    low, high = min(batch_sizes), max(batch_sizes)
    at_low, at_high = (
        peak_bytes(replace(job, micro_batch_size=size), built, OverallPeak) for size in (low, high)
    )
    width = max(1, high - low)
    return {n: at_low + (at_high - at_low) * (n - low) // width for n in batch_sizes}
