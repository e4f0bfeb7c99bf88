"""The timeline: sizes at any batch size, and what the store keeps."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from convolutions import CONVOLUTION

from memplan_server.timeline import Module, Timeline

TIMELINE = Timeline(
    events=np.array([0, 1, 2, ~1, ~2], np.int32),
    phase=np.array([0, 1, 2, 2, 3], np.uint8),
    step=np.zeros(5, np.uint8),
    intercept=np.array([100, 0, 8], np.int64),
    slope=np.array([0, 4, 2], np.int64),
    category=np.array([0, 5, 8], np.uint8),
    module=np.array([-1, 0, -1], np.int32),
    micro_step=np.array([0, 0, 1], np.uint8),
    modules=(Module("", "Net"),),
    workspaces={2: "cudnn/0"},
    convolutions=(CONVOLUTION,),
    kernel_classes=((8, 0), (9, 0)),
    traits=("convolution",),
    library_versions={"torch": "2"},
)


def test_sizes_are_affine_in_the_batch_size() -> None:
    assert TIMELINE.sizes(10).tolist() == [100, 40, 28]


def test_the_last_micro_batch_may_be_smaller() -> None:
    timeline = replace(TIMELINE, micro_steps=2)
    assert timeline.sizes(10, last_batch_size=3).tolist() == [100, 40, 14]


def test_bytes_read_back_equal() -> None:
    copy = Timeline.from_bytes(TIMELINE.to_bytes())
    for field in fields(Timeline):
        before, after = getattr(TIMELINE, field.name), getattr(copy, field.name)
        assert np.array_equal(before, after) if isinstance(before, np.ndarray) else before == after
