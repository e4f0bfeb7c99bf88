"""Workspaces: which GPU takes them, for what, and how they grow with the batch size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from convolutions import CONVOLUTION

from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.convolutions import rules
from memplan_server.gpus.libraries import workspaces
from memplan_server.timeline import Convolution, Size, Timeline

IMAGE, RESULT, KERNEL = 64 * 56 * 56 * 4, 128 * 28 * 28 * 4, 128 * 64 * 9 * 4
AMPERE = rules((8, 0))

pointwise = replace(CONVOLUTION, kernel=(128, 64, 1, 1), stride=(1, 1), result=(128, 56, 56))
POINTWISE_KERNEL = 128 * 64 * 4


@pytest.mark.parametrize(
    ("convolution", "expected"),
    [
        (CONVOLUTION, (IMAGE + RESULT, KERNEL)),
        (replace(CONVOLUTION, direction="dgrad"), (RESULT, KERNEL)),
        (replace(CONVOLUTION, direction="fprop"), (0, 0)),
        (pointwise, (0, 0)),
        (replace(pointwise, direction="dgrad"), (0, 0)),
        (
            replace(pointwise, stride=(2, 2), result=(128, 28, 28)),
            (IMAGE + RESULT, POINTWISE_KERNEL),
        ),
        (replace(CONVOLUTION, channels_last=True), (0, 0)),
        (replace(CONVOLUTION, dtype="float64", itemsize=8), (0, 0)),
    ],
)
def test_what_backward_converts(convolution: Convolution, expected: tuple[int, int]) -> None:
    assert AMPERE.workspace(convolution) == (Size(0, *expected),)


@pytest.mark.parametrize(
    ("gpu_type", "formats"),
    [
        ("nvidia-p100", set()),
        ("nvidia-v100-16gb", {"float16"}),
        ("nvidia-t4", {"float16"}),
        ("nvidia-a100-40gb", {"float16", "bfloat16", "float32"}),
        ("nvidia-b200", {"float16", "bfloat16", "float32"}),
    ],
)
def test_formats_of_tensor_cores(gpu_type: str, formats: set[str]) -> None:
    found = workspaces(GpuCatalog.load().get(gpu_type)).convolution_rules
    assert found.tensor_core_dtypes == formats


def test_a_timeline_takes_the_workspaces_of_a_gpu() -> None:
    traced = Timeline(
        events=np.array([0, 1, ~1, 2, ~2], np.int32),
        phase=np.zeros(5, np.uint8),
        step=np.zeros(5, np.uint8),
        intercept=np.array([0, 0, 7], np.int64),
        slope=np.array([0, 2, 3], np.int64),  # a convolution that sees two samples of each image
        category=np.array([8, 8, 5], np.uint8),
        module=np.full(3, -1, np.int32),
        micro_step=np.zeros(3, np.uint8),
        workspaces={0: "cublas", 1: "cudnn/0"},
        convolutions=(CONVOLUTION,),
    )
    catalog = GpuCatalog.load()
    a100 = traced.with_workspaces(workspaces(catalog.get("nvidia-a100-40gb")))
    assert a100.sizes(10).tolist() == [8_519_680, KERNEL + 20 * (IMAGE + RESULT), 37]
    p100 = traced.with_workspaces(workspaces(catalog.get("nvidia-p100")))
    assert p100.sizes(10).tolist() == [8_519_680, 0, 37]
    h100 = traced.with_workspaces(workspaces(catalog.get("nvidia-h100-80gb")))
    assert h100.sizes(10)[0] == 32 << 20
