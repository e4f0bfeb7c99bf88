"""GPU types and the part of a GPU that a job may use.

Counterpart of `proto/memplan/v1/gpus.proto`: same names, same meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["GpuTarget", "GpuType"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuType:
    """A GPU type of the catalog, or a MIG profile of one."""

    name: str = ""
    """Kebab-case: `nvidia-t4`, `nvidia-a100-40gb`, `nvidia-a100-40gb-mig-3g.20gb`."""
    aliases: tuple[str, ...] = ()
    """What NVML and node labels call it: accepted wherever a name is."""
    total_bytes: int = 0
    """Memory that the driver reports (nvidia-smi's total), bytes."""
    usable_bytes: int = 0
    """Memory that a process can take, its CUDA context included (cudaMemGetInfo's total), bytes."""
    context_bytes: int = 0
    """CUDA context and the kernels loaded by a training step, bytes: what the driver shows beyond
    what the caching allocator reserves."""
    compute_capability: str = ""
    """CUDA compute capability, `8.0`."""
    multiprocessor_count: int = 0
    """Streaming multiprocessors."""
    mig_parent: str = ""
    """For a MIG profile: the GPU type it is a slice of. Else empty."""
    mig_instance_count: int = 0
    """For a MIG profile: how many of it one GPU holds. Else 0."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where each number comes from, by field name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuTarget:
    """A GPU that a job may run on."""

    gpu_type: str = ""
    """A name or alias of the catalog. Required."""
    free_bytes: int | None = None
    """Bytes free on it, when not all of it is. Default: the type's usable_bytes. The job's own CUDA
    context must fit in them too. 0 to 2^50."""
