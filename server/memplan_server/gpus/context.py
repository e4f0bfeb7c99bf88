"""What CUDA and its libraries take of a GPU beside PyTorch's allocator."""

from __future__ import annotations

from collections.abc import Collection

from memplan.types import GpuType
from memplan_server.gpus.libraries import capability

__all__ = ["CUBLAS_BYTES", "context_bytes"]

CUBLAS_BYTES = 128 << 20
"""Of the context, what cuBLAS and its kernels take, which are loaded at the first matrix product.

Measured on an H200 with PyTorch 2.11, CUDA 13.0 and driver 580, by NVML for the process, less what
the allocator had reserved: 518 MiB before the first step; after the last, 630 in convolutional
networks without a matrix product, 742 in float32 without convolutions, 758 to 762 otherwise.
"""


def context_bytes(gpu_type: GpuType, traits: Collection[str]) -> int:
    """Bytes after the first steps of a job with these traits (`Timeline.traits`).

    The catalog has them with every library loaded. How much less they are without cuBLAS is known
    for whole Hopper GPUs.
    """
    known = capability(gpu_type) == (9, 0) and not gpu_type.mig_parent
    less = CUBLAS_BYTES if known and "matrix_product" not in traits else 0
    return gpu_type.context_bytes - less
