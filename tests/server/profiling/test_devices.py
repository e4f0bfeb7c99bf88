"""Which devices there are, by what NVML and CUDA_VISIBLE_DEVICES say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "transport"))

from fake_nvml import Gpu, Nvml

from memplan.types import DeviceType
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.profiling.devices import Gpus, processor

CATALOG = GpuCatalog.load()
MIB = 1 << 20


@pytest.fixture(autouse=True)
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memplan_server.profiling.devices._torch_has_cuda", lambda: True)


def uuids(nvml: Nvml, visible: str | None = None) -> list[str]:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return [device.uuid for device in Gpus(nvml, CATALOG, environment).devices()]


MIG = Gpu(
    "GPU-b",
    instances=[
        Gpu("MIG-1", name="NVIDIA A100-SXM4-40GB MIG 3g.20gb"),
        None,
        Gpu("MIG-2", name="NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
    ],
)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-aa", "MIG-1", "MIG-2"]),
        ("", []),
        ("-1", []),
        ("0", ["GPU-aa"]),
        ("1,0", ["MIG-1", "MIG-2", "GPU-aa"]),
        ("0,7,1", ["GPU-aa"]),
        ("GPU-a", ["GPU-aa"]),
        ("MIG-2", ["MIG-2"]),
    ],
)
def test_visible_devices_are_those_of_cuda(visible: str | None, expected: list[str]) -> None:
    assert uuids(Nvml(Gpu("GPU-aa"), MIG), visible) == expected


def test_devices_have_their_catalog_names() -> None:
    (first, instance, _) = Gpus(Nvml(Gpu("GPU-aa"), MIG), CATALOG, {}).devices()
    assert first.type is DeviceType.CUDA
    assert first.gpu_type == "nvidia-h100-80gb"
    assert instance.gpu_type.startswith("nvidia-a100-40gb-mig-")
    unknown = Gpus(Nvml(Gpu("GPU-c", name="NVIDIA Nonesuch")), CATALOG, {}).devices()
    assert (unknown[0].name, unknown[0].gpu_type) == ("NVIDIA Nonesuch", "")


def test_without_a_driver_or_a_cuda_build_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Gpus(None, CATALOG, {}).devices() == ()
    monkeypatch.setattr("memplan_server.profiling.devices._torch_has_cuda", lambda: False)
    assert uuids(Nvml(Gpu("GPU-aa"))) == []


def test_sharing_is_told() -> None:
    gpu = Gpu("GPU-aa", processes=[5, 6])
    nvml = Nvml(gpu, names={5: "/usr/bin/nvidia-cuda-mps-server"})
    gpus = Gpus(nvml, CATALOG, {})
    (device,) = gpus.devices()
    assert "process 6" in gpus.obstacle(device)
    shared, mps = gpus.notes(device)
    assert shared.startswith("Process 6 used the GPU meanwhile")
    assert mps.startswith("MPS is on")
    gpu.processes = [5]
    assert gpus.obstacle(device) == ""
    gpu.processes = []
    assert gpus.notes(device) == ()
    gpu.uuid = "GPU-gone"
    assert "could not be read" in gpus.obstacle(device)
    assert gpus.used_bytes(device) == 0


def test_the_processor_has_a_name() -> None:
    assert processor()
