"""Library workspaces that depend on the GPU, by the names used in `Timeline.workspaces`."""

from __future__ import annotations

from collections.abc import Mapping

from memplan.types import GpuType

__all__ = ["capability", "kernel_class", "workspace_bytes"]

MIB = 1 << 20


def capability(gpu_type: GpuType) -> tuple[int, int]:
    """Compute capability as numbers: (8, 0)."""
    major, _, minor = gpu_type.compute_capability.partition(".")
    return int(major), int(minor)


def kernel_class(compute_capability: tuple[int, int]) -> tuple[int, int]:
    """The oldest compute capability for which PyTorch picks the same kernels: (8, 0) for an H100.

    Flash attention needs 8.0, bfloat16 attention kernels need 8.0, half precision ones 5.0; so a
    timeline traced for one member of a class holds for all of it.
    """
    return (8, 0) if compute_capability >= (8, 0) else (5, 0)


def cublas_workspace_bytes(compute_capability: tuple[int, int]) -> int:
    """Bytes of the workspace PyTorch gives each cuBLAS handle and stream.

    Source: `parseChosenWorkspaceSize` in aten/src/ATen/cuda/CublasHandlePool.cpp: `:4096:2:16:8`
    (KiB x count: 8,519,680 bytes after the handle's rounding) and 32 MiB on Hopper and later data
    centre GPUs (compute capability 9.x, 10.x).
    """
    return 32 * MIB if compute_capability[0] in (9, 10) else 4096 * 1024 * 2 + 16 * 1024 * 8


def workspace_bytes(gpu_type: GpuType) -> Mapping[str, int]:
    """Bytes of each workspace on this GPU type."""
    return {"cublas": cublas_workspace_bytes(capability(gpu_type))}
