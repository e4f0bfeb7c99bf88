"""What CUDA's libraries do on each kind of GPU: kernels that are chosen alike, and workspaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memplan.types import GpuType
from memplan_server.gpus import convolutions as rules
from memplan_server.gpus.buffers import Multiprocessors, buffer_bytes
from memplan_server.gpus.recurrent import Persistence, persistence
from memplan_server.gpus.recurrent import workspace as recurrent_workspace
from memplan_server.timeline import Recurrent, Size

if TYPE_CHECKING:
    from memplan_server.timeline import Convolution, Int64, Kernel

__all__ = [
    "COMMUNICATION_BYTES",
    "KERNEL_CLASSES",
    "Workspaces",
    "capability",
    "kernel_class",
    "workspaces",
]

MIB = 1 << 20

COMMUNICATION_BYTES = 32 * 3 * (4 * MIB + 4_915_200 + 524_288)
"""What NCCL may take beside PyTorch's allocator for one communicator: 0.9 GiB.

The most channels it opens between GPUs with NVLink, three connections of each (a ring, and a tree's
two), with a buffer for each protocol (Simple, LL128, LL). Over PCIe it opens few channels, and
takes a tenth of it. Source: DEFAULT_BUFFSIZE, DEFAULT_LL128_BUFFSIZE and DEFAULT_LL_BUFFSIZE in
NCCL's src/init.cc.
"""


def capability(gpu_type: GpuType) -> tuple[int, int]:
    """Compute capability as numbers: (8, 0)."""
    major, _, minor = gpu_type.compute_capability.partition(".")
    return int(major), int(minor)


CUBLASLT_BYTES = MIB
"""What PyTorch gives cuBLASLt for each handle and stream, unless `CUBLASLT_WORKSPACE_SIZE` says
otherwise. Measured with PyTorch 2.11 on an H200; source: `parseCUDABlasLtWorkspaceSize` in
aten/src/ATen/cuda/CublasHandlePool.cpp."""

DROPOUT_BYTES = 48 << 10
"""Random states of cuDNN's dropout for each multiprocessor. Measured with cuDNN 9.19 on an H200:
6,488,064 bytes, kept for good."""

_USUAL = 80
"""Multiprocessors of a GPU of which they are not known."""

KERNEL_CLASSES: tuple[tuple[int, int], ...] = ((6, 0), (7, 0), (8, 0), (8, 6), (9, 0))
"""One representative compute capability for each group of GPUs that PyTorch treats alike."""


def kernel_class(compute_capability: tuple[int, int]) -> tuple[int, int]:
    """The group of a compute capability, by what decides PyTorch's choice of kernels.

    Source: aten/src/ATen/native/transformers/cuda/sdp_utils.cpp. Tensor cores decide the alignment
    that memory-efficient attention asks for (7.0, 8.0); flash attention and bfloat16 need 8.0;
    8.6, 8.9 and 12.x cannot run flash attention backward with large heads; cuDNN attention comes
    first on 9.0 and 10.0.
    """
    major, minor = compute_capability
    if compute_capability in ((9, 0), (10, 0)):
        return (9, 0)
    if major == 12 or (major == 8 and minor >= 6):
        return (8, 6)
    if major >= 8:
        return (8, 0)
    return (7, 0) if major == 7 else (6, 0)


def cublas_workspace_bytes(compute_capability: tuple[int, int]) -> int:
    """Bytes of the workspace PyTorch gives each cuBLAS handle and stream.

    Source: `parseChosenWorkspaceSize` in aten/src/ATen/cuda/CublasHandlePool.cpp: `:4096:2:16:8`
    (KiB x count: 8,519,680 bytes after the handle's rounding) and 32 MiB on Hopper and later data
    centre GPUs (compute capability 9.x, 10.x).
    """
    return 32 * MIB if compute_capability[0] in (9, 10) else 4096 * 1024 * 2 + 16 * 1024 * 8


@dataclass(frozen=True, slots=True)
class Workspaces:
    """What libraries take on a GPU; equal for GPUs on which they take the same."""

    cublas_bytes: int
    convolution_rules: rules.Rules
    multiprocessors: Multiprocessors
    persistence: Persistence

    def of(self, name: str, convolutions: Sequence[Convolution]) -> tuple[Size, ...]:
        """Sizes by the number of samples, rising, by a name in `Timeline.workspaces`."""
        library, _, index = name.partition("/")
        if library == "cudnn":
            return self.convolution_rules.workspace(convolutions[int(index)])
        if library == "dropout":
            return (Size(fixed=DROPOUT_BYTES * self.multiprocessors.count),)
        return (Size(fixed=CUBLASLT_BYTES if library == "cublaslt" else self.cublas_bytes),)

    def buffer_bytes(self, kernel: Kernel | Recurrent, count: Int64) -> Int64:
        """As `timeline.Workspaces`."""
        if isinstance(kernel, Recurrent):
            return recurrent_workspace(kernel, count, self.persistence)
        return buffer_bytes(kernel, count, self.multiprocessors)


def workspaces(gpu_type: GpuType) -> Workspaces:
    """The workspaces on this GPU type."""
    of = capability(gpu_type)
    multiprocessors = Multiprocessors(gpu_type.multiprocessor_count or _USUAL, most_threads(of))
    return Workspaces(
        cublas_workspace_bytes(of),
        rules.rules(of, multiprocessors.count),
        multiprocessors,
        persistence(of, multiprocessors.count),
    )


def most_threads(compute_capability: tuple[int, int]) -> int:
    """Threads that a multiprocessor can hold. Source: the CUDA programming guide's table of
    technical specifications."""
    if compute_capability == (7, 5):
        return 1024
    few = ((8, 6), (8, 7), (8, 9), (12, 0), (12, 1))
    return 1536 if compute_capability in few else 2048
