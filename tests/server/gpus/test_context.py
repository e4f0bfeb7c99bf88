"""What CUDA takes beside the allocator, by what a job uses."""

from __future__ import annotations

import pytest

from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.gpus.context import CUBLAS_BYTES, context_bytes

CATALOG = GpuCatalog.load()
MIB = 1 << 20


def test_an_h200_as_measured() -> None:
    h200 = CATALOG.get("nvidia-h200")
    assert context_bytes(h200, ["matrix_product", "convolution"]) == 758 * MIB
    assert context_bytes(h200, ["convolution"]) == 630 * MIB


@pytest.mark.parametrize("name", ["nvidia-a100-80gb", "nvidia-h200-mig-1g.18gb"])
def test_others_as_the_catalog_says(name: str) -> None:
    gpu_type = CATALOG.get(name)
    assert context_bytes(gpu_type, []) == gpu_type.context_bytes > CUBLAS_BYTES
