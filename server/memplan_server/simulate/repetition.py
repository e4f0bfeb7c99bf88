"""The second training step once more.

Optimizer states are made at the end of the first step, so the second is the first that has to fit
its tensors around them, and the third the first that finds the memory as such a step leaves it. In
one job in thirty it takes up to 6 % more reserved bytes than the second; later ones take the same.
Its events are those of the second, so it needs no execution.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from memplan_server.timeline import Int64, Timeline

__all__ = ["with_third_step"]


def with_third_step(timeline: Timeline) -> Timeline:
    """The timeline of two steps with a third like the second.

    What the second step leaves alive (gradients, the loop's variables) the third lets go of where
    the second let go of what the first had left; it makes the same anew, as storages of its own.
    Without a third step where the second leaves something else than the first.
    """
    step = timeline.events[timeline.step == 1]
    made, freed = step[step >= 0], ~step[step < 0]
    left = _in_order(timeline, np.setdiff1d(made, freed))
    found = _in_order(timeline, np.setdiff1d(freed, made))
    if not np.array_equal(_kinds(timeline)[:, left], _kinds(timeline)[:, found]):
        return timeline
    count = len(timeline.intercept)
    makes, frees = np.arange(count), np.arange(count)
    makes[left] = count + np.arange(len(left))
    frees[found] = left
    storage = np.where(step >= 0, step, ~step)
    third = np.where(step >= 0, makes[storage], ~frees[storage]).astype(np.int32)
    return replace(
        timeline,
        events=np.concatenate([timeline.events, third]),
        phase=np.concatenate([timeline.phase, timeline.phase[timeline.step == 1]]),
        step=np.concatenate([timeline.step, np.full(len(third), 2, np.uint8)]),
        intercept=np.concatenate([timeline.intercept, timeline.intercept[left]]),
        slope=np.concatenate([timeline.slope, timeline.slope[left]]),
        category=np.concatenate([timeline.category, timeline.category[left]]),
        module=np.concatenate([timeline.module, timeline.module[left]]),
        micro_step=np.concatenate([timeline.micro_step, timeline.micro_step[left]]),
        stream=timeline.stream and (*timeline.stream, *(timeline.stream[i] for i in left)),
    )


def _kinds(timeline: Timeline) -> Int64:
    """[4, m] what has to be equal of two storages that stand for the same tensor."""
    columns = (timeline.category, timeline.micro_step, timeline.intercept, timeline.slope)
    return np.stack([column.astype(np.int64) for column in columns])


def _in_order(timeline: Timeline, storages: Int64) -> Int64:
    """The storages by their kinds, those of one kind as they were made."""
    kinds = _kinds(timeline)[:, storages]
    return storages[np.lexsort((storages, *kinds))]
