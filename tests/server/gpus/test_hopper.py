"""What convolutions take on Hopper: measured examples, and what holds for all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from convolutions import CONVOLUTION

from memplan_server.allocator.rounding import round_size
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.convolutions import hopper, rules
from memplan_server.gpus.libraries import workspaces
from memplan_server.timeline import Convolution, Size, Timeline

MIB = 1 << 20

HOPPER = rules((9, 0))

NEARLY = """
dgrad float16  last 1 64x112x112  128x64x3x3    1  1  32        512
wgrad float16  -    1 3x224x224   32x3x3x3      2  1 128  207618048
fprop float16  -    1 3x224x224   64x3x7x7      2  1 128  257949696
wgrad float32  -    1 3x224x224   64x3x7x7      2  1 128  520093696
fprop float16  last 1 3x224x224   64x3x7x7      2  1  32   12870656
fprop float32  -    1 256x56x56   512x256x1x1   2  1 128  411566592
dgrad float32  -    1 256x56x56   64x256x1x1    1  1 128        512
wgrad float16  -    1 256x56x56   64x256x1x1    1  1 128    8389120
wgrad float32  -    1 32x112x112  16x32x1x1     1  1  32   78116352
fprop float32  -    1 2048x65x65  256x2048x1x1  1  1  32 1250198016
wgrad float32  last 32 128x56x56  128x4x3x3     1  1  32  103055872
fprop float16  last 14 336x14x14  336x24x3x3    1  1  32   12541952
wgrad float32  -    3 72x56x56    72x24x3x3     1  1 128  232704512
wgrad float32  last 96 96x56x56   96x1x7x7      1  1  32  318220288
"""
EXACTLY = """
wgrad float32  -    1 128x14x14   256x128x3x3   1  1  32   14353408
fprop float16  -    1 64x112x112  128x64x3x3    1  1  32  154288640
dgrad float16  -    1 64x112x112  128x64x3x3    1  1 128  616710656
wgrad float16  -    1 64x112x112  128x64x3x3    1  1 128  620545024
dgrad float32  -    1 64x112x112  128x64x3x3    1  1 128 1233420800
fprop float32  -    1 64x112x112  128x64x3x3    1  1 128  411337216
wgrad float32  -    1 64x112x112  128x64x3x3    1  1 128 1237681152
wgrad float16  last 1 64x112x112  128x64x3x3    1  1  32    3834880
fprop float16  -    1 3x224x224   32x3x3x3      2  1 128          0
wgrad float32  -    1 3x224x224   32x3x3x3      2  1 128          0
dgrad float32  -    1 256x56x56   512x256x1x1   2  1 128  616563200
fprop float16  -    1 256x56x56   64x256x1x1    1  1 128          0
wgrad float32  -    1 256x56x56   64x256x1x1    1  1  32    2097152
wgrad float32  -    1 32x112x112  16x32x1x1     1  1 128     262144
dgrad float32  -    1 512x7x7     2048x512x1x1  1  1 128   64225792
wgrad float32  -    1 512x7x7     2048x512x1x1  1  1 128   72614400
wgrad float32  last 1 512x7x7     2048x512x1x1  1  1  32   16777728
fprop float32  -    1 2048x65x65  256x2048x1x1  1  1 128          0
fprop float32  last 1 2048x65x65  256x2048x3x3  1 12  32 1264878080
dgrad float32  last 1 2048x65x65  256x2048x3x3  1 12  32  157319680
dgrad float16  -    1 18x56x56    18x18x3x3     1  1 128   38545920
dgrad float16  last 1 18x56x56    18x18x3x3     1  1  32    9644544
fprop float32  -   32 128x56x56   128x4x3x3     1  1 128  411060736
dgrad float16  last 32 128x56x56  128x4x3x3     1  1  32          0
dgrad float32  -   14 336x14x14   336x24x3x3    1  1 128   90432000
fprop float16  -    3 72x56x56    72x24x3x3     1  1 128  115636736
wgrad float16  -   96 96x56x56    96x1x7x7      1  1 128          0
wgrad float16  last 96 96x56x56   96x1x7x7      1  1  32    4816896
wgrad float32  -     1 80x56x56    80x80x3x3      1  1  32   72714240
wgrad float32  -     1 336x14x14   888x336x1x1    2  1 128   64254976
wgrad float32  -     1 64x56x56    64x64x3x3      1  1   8   15057920
wgrad float32  -     1 64x64x64    128x64x3x3     1  1  32  105219072
wgrad float32  -     1 48x96x96    192x48x3x3     1  1  32  291968000
wgrad float32  -     1 256x14x14   256x256x3x3    1  1 128   60818432
wgrad float32  -     1 512x14x14   512x512x3x3    1  1  32   43779072
wgrad float32  -     1 256x28x28   512x256x3x3    1  1  32   86115328
wgrad float32  -     1 160x14x14   320x160x3x3    1  1 128   57090560
wgrad float32  -     1 128x56x56   32x128x3x3     1  1  32   68633600
wgrad float32  -     1 32x112x112  32x32x3x3      1  1  32  110991872
wgrad float16  -     1 128x64x64   128x128x3x3    1  1  32   75072512
wgrad float16  -     1 128x28x28   128x128x3x3    1  1 128   59343872
wgrad float16  -     1 128x32x32   128x128x3x3    1  1  32   20612096
wgrad float16  -     1 128x14x14   128x128x3x3    1  1  32    3506688
wgrad float16  -     1 128x56x56   256x128x3x3    1  1  32   92996608
wgrad float16  -     1 256x56x56   256x256x3x3    1  1   8   33948672
wgrad float16  -     1 256x28x28   512x256x3x3    1  1  32   44827648
wgrad float16  -     1 32x112x112  64x32x3x3      1  1  32   82843648
wgrad float16  last  1 64x56x56    64x64x3x3      1  1  32    1917952
wgrad float16  last  1 128x14x14   256x128x1x1    1  1  32     524800
wgrad float16  last  1 64x56x56    256x64x1x1     1  1  32    4915712
wgrad float32  last  1 256x14x14   1024x256x1x1   1  1  32   16777728
wgrad float32  last  1 480x14x14   128x480x1x1    1  1  32   16220672
wgrad float32  last  1 80x56x56    80x80x3x3      1  1  32    8258560
"""
"""Of `bench/workspaces/measured/nvidia-h200.csv.gz`: direction, number format, layout, groups,
image, kernel, stride, dilation, samples and bytes taken."""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split("x")))


def _convolution(line: str) -> Convolution:
    direction, dtype, layout, groups, image, kernel, stride, dilation, *_ = line.split()
    shape, window = _numbers(image), _numbers(kernel)
    lengths = tuple(-(-n // int(stride)) for n in shape[1:])
    return Convolution(
        direction=direction,
        dtype=dtype,
        itemsize=4 if dtype == "float32" else 2,
        channels_last=layout == "last",
        groups=int(groups),
        image=shape,
        kernel=window,
        result=(window[0], *lengths),
        stride=(int(stride),) * 2,
        dilation=(int(dilation),) * 2,
    )


def _lines(table: str) -> list[str]:
    return [line for line in table.split("\n") if line]


EXAMPLES = [_convolution(line) for line in _lines(NEARLY) + _lines(EXACTLY)]


def _bytes(convolution: Convolution, samples: int) -> int:
    size = [s for s in HOPPER.workspace(convolution) if s.samples <= samples][-1]
    return size.each * samples + size.fixed


@pytest.mark.parametrize("line", _lines(EXACTLY))
def test_what_was_measured_in_blocks_of_the_allocator(line: str) -> None:
    samples, taken = map(int, line.split()[-2:])
    said = _bytes(_convolution(line), samples)
    assert (round_size(said) if said else 0) == taken


@pytest.mark.parametrize("line", _lines(NEARLY))
def test_what_was_measured_nearly(line: str) -> None:
    samples, taken = map(int, line.split()[-2:])
    assert _bytes(_convolution(line), samples) == pytest.approx(taken, rel=0.04, abs=1.1 * MIB)


@pytest.mark.parametrize("direction", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_nothing_is_negative_and_more_samples_take_no_less(
    direction: str, channels_last: bool
) -> None:
    for example in EXAMPLES:
        convolution = replace(example, direction=direction, channels_last=channels_last)
        for size in HOPPER.workspace(convolution):
            assert size.each >= 0
            assert size.fixed >= 0


def test_a_gradient_has_parts_for_the_multiprocessors_there_are() -> None:
    line = "wgrad float32 last 1 80x56x56 80x80x3x3 1 1"
    h200, pcie = (rules((9, 0), count).workspace(_convolution(line)) for count in (132, 114))
    nine_tiles = 9 * 128 * 128 * 4
    assert [h200[-1].fixed // nine_tiles, pcie[-1].fixed // nine_tiles] == [14, 12]
    assert h200[0] == Size()


def test_steps_rise() -> None:
    for example in EXAMPLES:
        steps = [size.samples for size in HOPPER.workspace(example)]
        assert steps == sorted(set(steps))
        assert steps[0] == 0


def test_half_formats_take_the_same() -> None:
    for example in EXAMPLES:
        half = replace(example, dtype="float16", itemsize=2)
        other = replace(example, dtype="bfloat16", itemsize=2)
        assert HOPPER.workspace(half) == HOPPER.workspace(other)


def test_without_tensor_cores_nothing_is_counted() -> None:
    double = replace(CONVOLUTION, dtype="float64", itemsize=8)
    assert HOPPER.workspace(double) == (Size(),)


def test_any_number_of_dimensions_will_do() -> None:
    line = replace(
        CONVOLUTION,
        image=(64, 100),
        kernel=(64, 64, 3),
        result=(64, 50),
        stride=(2,),
        dilation=(1,),
    )
    volume = replace(
        CONVOLUTION,
        image=(8, 10, 10, 10),
        kernel=(8, 8, 3, 3, 3),
        result=(8, 10, 10, 10),
        stride=(1, 1, 1),
        dilation=(1, 1, 1),
    )
    assert HOPPER.workspace(line)[0].each == 4 * 64 * (100 + 50)
    assert HOPPER.workspace(volume)[0].each == 4 * 2 * 8 * 1000


def test_only_hopper_has_these_rules() -> None:
    catalog = GpuCatalog.load()
    h200, h100, a100, b200 = (
        workspaces(catalog.get(f"nvidia-{name}"))
        for name in ("h200", "h100-80gb", "a100-40gb", "b200")
    )
    assert h200 == h100
    assert hash(h200) == hash(h100)
    assert h200.convolution_rules.hopper
    assert not a100.convolution_rules.hopper
    assert a100.convolution_rules == b200.convolution_rules


def test_a_timeline_changes_size_with_the_number_of_samples() -> None:
    narrow = _convolution("wgrad float32 - 1 32x112x112 16x32x1x1 1 1")
    few, many = HOPPER.workspace(narrow)
    assert many.samples == hopper.MANY_SAMPLES
    traced = Timeline(
        events=np.array([0, ~0, 1, ~1], np.int32),
        phase=np.zeros(4, np.uint8),
        step=np.zeros(4, np.uint8),
        intercept=np.array([0, 5], np.int64),
        slope=np.array([2, 4], np.int64),  # two samples of each image
        category=np.array([8, 5], np.uint8),
        module=np.full(2, -1, np.int32),
        micro_step=np.array([0, 1], np.uint8),
        micro_steps=2,
        workspaces={0: "cudnn/0"},
        convolutions=(narrow,),
    )
    on_h200 = traced.with_workspaces(workspaces(GpuCatalog.load().get("nvidia-h200")))
    assert on_h200.sizes(63).tolist() == [few.fixed + few.each * 126, 257]
    assert on_h200.sizes(64).tolist() == [many.fixed + many.each * 128, 261]
    assert on_h200.sizes(64, last_batch_size=1).tolist() == [many.fixed + many.each * 128, 9]
