"""What cuDNN is told about a GPU that is not there.

The keys are those that OpenXLA writes (`xla/backends/gpu/target_config/cudnn_device_props.cc`), the
one published user of this description. The GPU catalog has compute capability, multiprocessors and
memory; the rest is here, by compute capability, as of one board of each.

cuDNN 9.19 looks at the compute capability and at hardly anything else, which is why one board of
each will do: `bench/cudnn_workspaces.py --sensitivity` counts the answers that change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memplan.types import GpuType
from memplan_server.gpus.libraries import capability
from workspaces.backend import Attribute, CudnnError, Kind, Library

__all__ = ["DRIVER_VERSION", "described", "properties"]

DRIVER_VERSION = 12040
"""CUDA 12.4, as `cuDriverGetVersion` says it."""

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """Limits of a compute capability, and clocks of one GPU that has it."""

    shared_memory_bytes: int
    """The most that a block can ask for."""
    blocks: int
    """Resident on a multiprocessor."""
    threads: int
    """Resident on a multiprocessor."""
    l2_bytes: int
    clock_khz: int
    memory_clock_khz: int


_BOARDS: Mapping[tuple[int, int], Board] = {
    (6, 0): Board(  # P100
        shared_memory_bytes=48 * KIB,
        blocks=32,
        threads=2048,
        l2_bytes=4 * MIB,
        clock_khz=1_480_500,
        memory_clock_khz=715_000,
    ),
    (7, 0): Board(  # V100
        shared_memory_bytes=96 * KIB,
        blocks=32,
        threads=2048,
        l2_bytes=6 * MIB,
        clock_khz=1_530_000,
        memory_clock_khz=877_000,
    ),
    (7, 5): Board(  # T4
        shared_memory_bytes=64 * KIB,
        blocks=16,
        threads=1024,
        l2_bytes=4 * MIB,
        clock_khz=1_590_000,
        memory_clock_khz=5_001_000,
    ),
    (8, 0): Board(  # A100 SXM4 40 GB
        shared_memory_bytes=163 * KIB,
        blocks=32,
        threads=2048,
        l2_bytes=40 * MIB,
        clock_khz=1_410_000,
        memory_clock_khz=1_215_000,
    ),
    (8, 6): Board(  # RTX A6000
        shared_memory_bytes=99 * KIB,
        blocks=16,
        threads=1536,
        l2_bytes=6 * MIB,
        clock_khz=1_800_000,
        memory_clock_khz=8_001_000,
    ),
    (8, 9): Board(  # L40S
        shared_memory_bytes=99 * KIB,
        blocks=24,
        threads=1536,
        l2_bytes=96 * MIB,
        clock_khz=2_520_000,
        memory_clock_khz=9_001_000,
    ),
    (9, 0): Board(  # H100 SXM5
        shared_memory_bytes=227 * KIB,
        blocks=32,
        threads=2048,
        l2_bytes=50 * MIB,
        clock_khz=1_980_000,
        memory_clock_khz=2_619_000,
    ),
    (10, 0): Board(  # B200
        shared_memory_bytes=227 * KIB,
        blocks=32,
        threads=2048,
        l2_bytes=132_644_864,
        clock_khz=1_965_000,
        memory_clock_khz=3_996_000,
    ),
    (12, 0): Board(  # RTX PRO 6000
        shared_memory_bytes=99 * KIB,
        blocks=24,
        threads=1536,
        l2_bytes=128 * MIB,
        clock_khz=2_600_000,
        memory_clock_khz=14_000_000,
    ),
}
"""Sources. Shared memory, blocks, threads: "Technical Specifications per Compute Capability" in the
CUDA programming guide. L2 and clocks: what `cudaGetDeviceProperties` said on these boards, as
OpenXLA keeps it (`xla/backends/gpu/target_config/specs/`: p100, v100, a100_sxm_40, a6000, h100_sxm,
b200, rtx6000pro; memory clocks of the last and of a6000 follow from the bandwidth there); T4 and
L40S: NVIDIA's data sheets."""


def properties(gpu_type: GpuType) -> dict[str, Any]:
    """The description of a GPU type, to be written as JSON.

    Raises CudnnError for a compute capability that is not in the table.
    """
    major, minor = capability(gpu_type)
    board = _BOARDS.get((major, minor))
    if board is None:
        known = ", ".join(f"{a}.{b}" for a, b in _BOARDS)
        raise CudnnError(
            f"Nothing is known of compute capability {major}.{minor} ({gpu_type.name}), only of "
            f"{known}. Add it to {__name__}."
        )
    return {
        "deviceVer": 100 * major + 10 * minor,
        "multiProcessorCount": gpu_type.multiprocessor_count,
        "totalGlobalMem": gpu_type.usable_bytes,
        "deviceName": gpu_type.name,
        "maxSharedMemoryPerBlockOptin": board.shared_memory_bytes,
        "maxCtasPerSM": board.blocks,
        "maxThreadsPerSM": board.threads,
        "l2CacheSize": board.l2_bytes,
        "smClockRateKHz": board.clock_khz,
        "memClockRateKHz": board.memory_clock_khz,
        "reservedSharedMemoryPerBlock": KIB if major >= 8 else 0,
        **_ALIKE,
    }


def described(library: Library, device: int = 0) -> dict[str, Any]:
    """The same of a GPU that is there, by CUDA's number of it, in cuDNN's words.

    Raises CudnnError where there is none.
    """
    made = library.descriptor(Kind.DEVICE).index(Attribute.DEVICE_ID, device).finalize()
    found: dict[str, Any] = json.loads(made.characters(Attribute.DEVICE_JSON))
    return found


_ALIKE: Mapping[str, Any] = {
    "warpSize": 32,
    "maxSharedMemoryPerBlock": 48 * KIB,
    "maxRegistersPerSM": 65536,
    "regsPerBlock": 65536,
    "maxThreadsPerBlock": 1024,
    "maxBlockSize": [1024, 1024, 64],
    "maxGridSize": [2**31 - 1, 65535, 65535],
    "supportCoopLaunch": 1,
    "driverVer": DRIVER_VERSION,
    "pciDeviceId": 0,
    "cudaDeviceId": 0,
    "isTccDriver": 0,
}
"""The same on all of them."""
