"""What cuDNN is told and what is read of its answers, with a fake of its functions."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace
from pathlib import Path

import pytest
from convolutions import CONVOLUTION
from fake_cudnn import FakeCudnn, Made
from hypothesis import given
from hypothesis import strategies as st

from memplan.types import GpuType
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.timeline import Convolution
from workspaces import backend
from workspaces.backend import Attribute, CudnnError, Kind, Library
from workspaces.comparison import Call
from workspaces.devices import described, properties
from workspaces.heuristics import Choice, Heuristics, Mode, padding, strides
from workspaces.sensitivity import sensitivity

A100 = GpuCatalog.load().get("nvidia-a100-40gb")


def one(asked: Made) -> list[tuple[int, int]]:
    return [(7, 4096)]


def asked_about(convolution: Convolution, samples: int = 8) -> FakeCudnn:
    fake = FakeCudnn(one)
    Heuristics(fake.library(), properties(A100)).choices(convolution, samples)
    return fake


def test_proposals_of_the_instant_heuristics_come_before_the_fallback() -> None:
    def proposals(asked: Made) -> list[tuple[int, int]]:
        return [(1, 500), (2, 0)] if fake.mode(asked) is Mode.INSTANT else [(3, 9)]

    fake = FakeCudnn(proposals)
    heuristics = Heuristics(fake.library(), properties(A100))
    assert heuristics.choices(CONVOLUTION, 8) == (
        Choice(Mode.INSTANT, 1, 500),
        Choice(Mode.INSTANT, 2, 0),
        Choice(Mode.FALLBACK, 3, 9),
    )
    asked = len(fake.of(Kind.HEURISTICS))
    heuristics.choices(CONVOLUTION, 8)
    assert len(fake.of(Kind.HEURISTICS)) == asked, "it is asked once"


def test_ten_proposals_are_looked_at() -> None:
    fake = FakeCudnn(lambda asked: [(i, i) for i in range(24)])
    found = Heuristics(fake.library(), properties(A100)).choices(CONVOLUTION, 8)
    assert [choice.engine for choice in found] == list(range(10))


def test_a_convolution_without_an_engine_is_an_error() -> None:
    fake = FakeCudnn(lambda asked: [])
    with pytest.raises(CudnnError, match="no engine for 8 samples"):
        Heuristics(fake.library(), properties(A100)).choices(CONVOLUTION, 8)


def test_cudnn_is_told_the_shapes_with_the_samples() -> None:
    fake = asked_about(CONVOLUTION, samples=8)
    tensors = {chr(t.values[Attribute.TENSOR_ID][0]): t.values for t in fake.of(Kind.TENSOR)}
    shapes = {name: values[Attribute.TENSOR_DIMENSIONS] for name, values in tensors.items()}
    assert shapes == {"x": [8, 64, 56, 56], "y": [8, 128, 28, 28], "w": [128, 64, 3, 3]}
    assert tensors["x"][Attribute.TENSOR_STRIDES] == [64 * 56 * 56, 56 * 56, 56, 1]
    (how,) = fake.of(Kind.CONVOLUTION)
    assert how.values[Attribute.CONVOLUTION_STRIDES] == [2, 2]
    assert how.values[Attribute.CONVOLUTION_PRE_PADDINGS] == [1, 1]
    assert how.values[Attribute.CONVOLUTION_POST_PADDINGS] == [1, 1]
    assert how.values[Attribute.CONVOLUTION_SPATIAL_DIMS] == [2]


@pytest.mark.parametrize(
    ("direction", "kind"), [("fprop", Kind.FPROP), ("dgrad", Kind.DGRAD), ("wgrad", Kind.WGRAD)]
)
def test_each_direction_is_an_operation_of_its_own(direction: str, kind: Kind) -> None:
    (operation,) = asked_about(replace(CONVOLUTION, direction=direction)).of(kind)
    assert all(attribute.name.startswith(kind.name) for attribute in operation.values)
    assert len(operation.values) == 6
    assert operation.values[Attribute[f"{kind.name}_ALPHA"]] == [1.0]
    assert operation.values[Attribute[f"{kind.name}_BETA"]] == [0.0]


def test_one_spatial_dimension_becomes_two() -> None:
    fake = asked_about(
        replace(
            CONVOLUTION,
            image=(4, 100),
            kernel=(6, 4, 5),
            result=(6, 100),
            stride=(1,),
            dilation=(1,),
        )
    )
    shapes = [t.values[Attribute.TENSOR_DIMENSIONS] for t in fake.of(Kind.TENSOR)]
    assert sorted(shapes) == [[6, 4, 1, 5], [8, 4, 1, 100], [8, 6, 1, 100]]
    (how,) = fake.of(Kind.CONVOLUTION)
    assert how.values[Attribute.CONVOLUTION_PRE_PADDINGS] == [0, 2]


def test_the_device_is_described_as_the_catalog_has_it() -> None:
    fake = asked_about(CONVOLUTION)
    (device,) = fake.of(Kind.DEVICE)
    told = json.loads(b"".join(device.values[Attribute.DEVICE_JSON]))
    assert told["deviceVer"] == 800
    assert told["multiProcessorCount"] == A100.multiprocessor_count
    assert told["totalGlobalMem"] == A100.usable_bytes


def test_another_number_format_is_refused() -> None:
    with pytest.raises(CudnnError, match="float32, float16, bfloat16 only, not about float64"):
        asked_about(replace(CONVOLUTION, dtype="float64"))


def test_errors_are_in_cudnns_own_words() -> None:
    fake = FakeCudnn(one)
    fake.refused = Kind.CONVOLUTION
    heuristics = Heuristics(fake.library(), properties(A100))
    words = r"cuDNN 9\.19\.0, finalizing CONVOLUTION: CUDNN_STATUS_BAD_PARAM \(2000\) the stride is"
    with pytest.raises(CudnnError, match=words):
        heuristics.choices(CONVOLUTION, 8)


def test_descriptors_are_given_back() -> None:
    fake = asked_about(CONVOLUTION)
    assert len(fake.made) > 10
    assert not fake.alive


def test_strides_of_both_layouts() -> None:
    assert strides((2, 3, 4, 5), channels_last=False) == (60, 20, 5, 1)
    assert strides((2, 3, 4, 5), channels_last=True) == (60, 1, 15, 3)
    assert strides((8, 4, 1, 1), channels_last=True) == (4, 1, 4, 4)


@given(
    kernel=st.integers(1, 11),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    beside=st.integers(0, 6),
    room=st.integers(0, 300),
)
def test_padding_follows_from_the_lengths(
    kernel: int, stride: int, dilation: int, beside: int, room: int
) -> None:
    extent = dilation * (kernel - 1) + 1
    image = max(1, extent - 2 * beside) + room
    length = (image + 2 * beside - extent) // stride + 1
    (found,) = padding(
        replace(
            CONVOLUTION,
            image=(3, image),
            kernel=(4, 3, kernel),
            result=(4, length),
            stride=(stride,),
            dilation=(dilation,),
        )
    )
    assert (image + 2 * found - extent) // stride + 1 == length
    assert found <= beside
    if stride <= 2:
        assert found == beside


def test_lengths_that_no_padding_makes() -> None:
    with pytest.raises(CudnnError, match="No padding makes 20 of 56"):
        padding(replace(CONVOLUTION, result=(128, 20, 20)))


def test_a_gpu_that_is_there_is_described_by_cudnn() -> None:
    fake = FakeCudnn(one)
    assert described(fake.library(), 1) == {"deviceVer": 900}
    (device,) = fake.of(Kind.DEVICE)
    assert device.values == {Attribute.DEVICE_ID: [1]}


def test_every_gpu_of_the_catalog_can_be_described() -> None:
    for gpu_type in GpuCatalog.load().all():
        assert properties(gpu_type)["multiProcessorCount"] > 0


def test_a_gpu_of_an_unknown_kind_cannot() -> None:
    with pytest.raises(CudnnError, match=r"Nothing is known of compute capability 3\.5 \(k80\)"):
        properties(GpuType(name="k80", compute_capability="3.5"))


def test_sensitivity_counts_the_answers_that_change() -> None:
    def proposals(asked: Made) -> list[tuple[int, int]]:
        clock = json.loads(fake.device(asked))["smClockRateKHz"]
        return [(0, clock), (1, 10**12)]

    fake = FakeCudnn(proposals)
    calls = [Call(CONVOLUTION, 8), Call(CONVOLUTION, 16)]
    found = {c.figure: c for c in sensitivity(fake.library(), properties(A100), calls)}
    assert (found["smClockRateKHz"].first, found["smClockRateKHz"].most) == (2, 0)
    assert found["smClockRateKHz"].value == 705_000
    assert (found["l2CacheSize"].first, found["l2CacheSize"].calls) == (0, 2)
    assert "deviceVer" not in found


def test_an_old_library_says_from_when_on() -> None:
    with pytest.raises(CudnnError, match=r"cuDNN 8\.9\.7 cannot be asked .* 9\.8 and later can"):
        FakeCudnn(one, number=8 * 10000 + 907).library()


def test_a_folder_without_the_library_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(CudnnError) as raised:
        Library.load(tmp_path)
    for said in (str(tmp_path), "nvidia-cudnn-cu12", "nvidia-cublas-cu12", "MEMPLAN_CUDNN"):
        assert said in str(raised.value)


def test_a_library_that_cannot_be_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "nvidia/cudnn/lib"
    folder.mkdir(parents=True)
    (folder / "libcudnn.so.9").write_text("not a library")
    with pytest.raises(CudnnError, match=r"cannot be loaded: .*nvidia/cudnn/lib/libcudnn\.so\.9"):
        Library.load(tmp_path)


def test_cudnn_without_cublas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str) -> object:
        if "cublas" in Path(path).name:
            raise OSError(f"{path}: no such file")
        return FakeCudnn(one).functions

    monkeypatch.setattr(ctypes, "CDLL", load)
    (tmp_path / "libcudnn.so.9").touch()
    with pytest.raises(CudnnError, match=r"needs libcublasLt\.so\.12"):
        Library.load(tmp_path)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: FakeCudnn(one).functions)
    assert Library.load(tmp_path).version == "9.19.0"


def test_versions() -> None:
    assert backend.version(91002) == "9.10.2"
