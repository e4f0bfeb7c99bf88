"""Rows that a table's own other rows contradict, told without asking the estimate.

Less memory than the table itself says that tensors take is no measurement of a step that ran.
Memory is nearly a line in the batch size, so a row far off the line through its model's other rows
is spoiled, too. Those far above it most likely saw `cudnn.benchmark` try algorithms in whatever was
free, for a moment, which never fails a job.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

from measured import CORPUS
from reporting.scores import Scored

__all__ = ["SPOILED", "sound"]

SPOILED = 0.15
"""Share by which a row may be off its model's line."""


def sound(items: Sequence[Scored]) -> list[Scored]:
    """Those that can be judged, and are not spoiled; of the corpus, all.

    Models at fewer than three batch sizes cannot be judged.
    """
    by_model: dict[tuple[str, str, str], list[Scored]] = defaultdict(list)
    for item in items:
        if not _impossible(item):
            by_model[item.row.table, item.row.model, item.row.gpu_type].append(item)
    kept: list[Scored] = []
    for some in by_model.values():
        if some[0].row.table == CORPUS:
            kept += some
        elif len({_point(s)[0] for s in some}) >= 3:
            kept += [s for s in some if abs(_off_the_line(s, some)) <= SPOILED]
    return kept


def _impossible(item: Scored) -> bool:
    used, tensors = item.row.driver_used_bytes, item.row.fake_tensor_bytes
    return used is not None and tensors is not None and used < tensors


def _off_the_line(item: Scored, some: Iterable[Scored]) -> float:
    """How far a row is above the line through the others of its model, as a share of the line."""
    points = [_point(other) for other in some if other is not item]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if a[0] != b[0]]
    slope = statistics.median(slopes)
    start = statistics.median(y - slope * x for x, y in points)
    x, y = _point(item)
    return y / (start + slope * x) - 1


def _point(item: Scored) -> tuple[int, int]:
    used = item.row.driver_used_bytes
    assert used is not None
    return item.row.job.micro_batch_size, used
