"""What a measured run of a job gives: plain data, without torch.

Measurement.from_dict(json.loads(text)) == measurement     # text = json.dumps(to_dict())
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Gpu", "Measurement", "OutOfMemory", "StepSeconds"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """The device that was measured on."""

    name: str
    """As NVML gives it; "cpu" for a dry run."""
    total_bytes: int = 0
    """NVML's total: what nvidia-smi shows. 0 where NVML is absent."""
    usable_bytes: int = 0
    """cudaMemGetInfo's total."""
    compute_capability: str = ""
    """`8.0`."""
    multiprocessor_count: int = 0
    mig: bool = False
    """Whether it is a MIG instance."""
    driver_version: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutOfMemory:
    """The allocation that did not fit."""

    requested_bytes: int | None
    """What was asked for, to the precision that PyTorch prints; None when it did not say."""
    phase: str
    """Phase in which it happened: setup, forward, backward, optimizer_step."""
    step: int
    """Training step in which it happened, from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSeconds:
    """Wall-clock time of one optimizer step, seconds, over the measured steps."""

    median: float
    p10: float
    p90: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One job, really run for some steps in a process of its own. Bytes; None is not known."""

    device_type: str
    """`cuda`, or `cpu` for a dry run, which has neither reserved bytes nor a driver."""
    gpu: Gpu
    library_versions: Mapping[str, str]
    """torch, torchvision, timm, transformers, cuda, cudnn: those that are there."""
    peak_allocated_bytes: int
    """torch.cuda.max_memory_allocated() from the first tensor to the last step."""
    peak_reserved_bytes: int | None = None
    """torch.cuda.max_memory_reserved()."""
    device_used_bytes: int | None = None
    """What the driver counts for the process after the last step."""
    device_used_source: str = ""
    """`nvml-process`: NVML's figure for the process; `difference`: memory in use on the device now
    less before the process had its context, right when nothing else runs there."""
    driver_used_bytes: int | None = None
    """In use on the device after the last step, whoever uses it and the driver's own included:
    NVML's total less free."""
    driver_reserved_bytes: int | None = None
    """Of that, what the driver keeps for itself; nvidia-smi leaves it out from driver 510 on."""
    context_before_bytes: int | None = None
    """Device-used less reserved before the first step, the model being on the device."""
    context_after_bytes: int | None = None
    """Device-used less reserved after the last step: kernels are loaded when first used."""
    out_of_memory: OutOfMemory | None = None
    """Set when the job did not fit; peaks are then those up to that moment."""
    step_seconds: StepSeconds | None = None
    steps: int = 0
    """Training steps run, warm-up included."""
    optimizer_steps: int = 0
    """Of those, steps in which the optimizer ran: the gradient scaler skips overflows."""
    allocator_retries: int = 0
    """Times cached segments were given back to make room."""
    notes: tuple[str, ...] = field(default=())
    """What was done otherwise than described, in sentences without a full stop."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        """What `to_dict` gave. Raises TypeError for fields that are missing or unknown."""
        values = dict(data)
        nested = {"gpu": Gpu, "out_of_memory": OutOfMemory, "step_seconds": StepSeconds}
        for name, kind in nested.items():
            if values.get(name) is not None:
                values[name] = kind(**values[name])
        values["notes"] = tuple(values.get("notes", ()))
        return cls(**values)
