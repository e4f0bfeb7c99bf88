"""The real cuDNN, where one is: MEMPLAN_CUDNN names its folder."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from convolutions import CONVOLUTION

from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.timeline import Convolution
from workspaces.backend import Attribute, CudnnError, Kind, Library
from workspaces.devices import described, properties
from workspaces.heuristics import Heuristics

FOLDER = os.environ.get("MEMPLAN_CUDNN", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="MEMPLAN_CUDNN names no folder with cuDNN")

GPUS = [gpu_type.name for gpu_type in GpuCatalog.load().all() if not gpu_type.mig_parent]


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.load(Path(FOLDER))


@pytest.fixture(scope="module")
def a100(library: Library) -> Heuristics:
    return heuristics(library, "nvidia-a100-40gb")


def heuristics(library: Library, gpu_type: str) -> Heuristics:
    return Heuristics(library, properties(GpuCatalog.load().get(gpu_type)))


def test_a_description_is_read_as_it_was_written(library: Library) -> None:
    written = properties(GpuCatalog.load().get("nvidia-l40s"))
    device = library.descriptor(Kind.DEVICE).text(Attribute.DEVICE_JSON, json.dumps(written))
    assert json.loads(device.finalize().characters(Attribute.DEVICE_JSON)) == written


def test_a_gpu_that_is_not_there(library: Library) -> None:
    with pytest.raises(CudnnError, match="DEVICE"):
        described(library, device=99)


@pytest.mark.parametrize("gpu_type", GPUS)
def test_it_answers_for_every_gpu_of_the_catalog(library: Library, gpu_type: str) -> None:
    for direction in ("fprop", "dgrad", "wgrad"):
        asked = replace(CONVOLUTION, direction=direction, dtype="float16", itemsize=2)
        choices = heuristics(library, gpu_type).choices(asked, 8)
        assert 1 <= len(choices) <= 10
        assert all(choice.workspace_bytes >= 0 for choice in choices)


def test_gpus_are_told_apart(library: Library) -> None:
    found = [heuristics(library, name).choices(CONVOLUTION, 8) for name in GPUS]
    assert len(set(found)) > 2


def test_contiguous_operands_are_converted_for_tensor_cores(a100: Heuristics) -> None:
    half = replace(CONVOLUTION, direction="dgrad", dtype="float16", itemsize=2)
    operands = (64 * 56 * 56 + 128 * 28 * 28) * 2
    small, large = (a100.choices(half, n)[0].workspace_bytes for n in (64, 128))
    assert large - small == pytest.approx(64 * operands, rel=0.01)
    last = a100.choices(replace(half, channels_last=True), 128)
    assert last[0].workspace_bytes < large / 10


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_number_formats_and_layouts(a100: Heuristics, dtype: str, channels_last: bool) -> None:
    assert a100.choices(replace(CONVOLUTION, dtype=dtype, channels_last=channels_last), 8)


LINE = replace(
    CONVOLUTION, image=(4, 64), kernel=(8, 4, 5), result=(8, 64), stride=(1,), dilation=(1,)
)
VOLUME = replace(
    CONVOLUTION,
    image=(4, 8, 16, 16),
    kernel=(8, 4, 3, 3, 3),
    result=(8, 8, 16, 16),
    stride=(1, 1, 1),
    dilation=(1, 1, 1),
)
GROUPED = replace(CONVOLUTION, kernel=(128, 2, 3, 3), groups=32)


@pytest.mark.parametrize("convolution", [LINE, VOLUME, GROUPED], ids=["1d", "3d", "groups"])
def test_kinds_of_convolutions(a100: Heuristics, convolution: Convolution) -> None:
    assert a100.choices(convolution, 4)


def test_it_refuses_in_its_own_words(a100: Heuristics) -> None:
    wrong = replace(CONVOLUTION, kernel=(128, 63, 3, 3))
    with pytest.raises(CudnnError, match="CUDNN_STATUS_"):
        a100.choices(wrong, 8)
