"""What a job needs, and where it fits.

Counterpart of `proto/memplan/v1/estimate.proto`: same names, same meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from memplan.types.gpus import GpuTarget
from memplan.types.job import DataParallel, Precision

__all__ = [
    "AccumulationPlan",
    "BatchSizeFormula",
    "BatchSizePoint",
    "BatchSizeRecommendation",
    "MemoryBreakdown",
    "MemoryEstimate",
    "ModelState",
    "ModuleMemory",
    "Phase",
    "Placement",
    "Remedy",
    "Verdict",
]


class Phase(StrEnum):
    """A part of the training step."""

    UNSPECIFIED = "unspecified"
    """Not known."""
    FORWARD = "forward"
    """Forward pass and loss."""
    BACKWARD = "backward"
    """Backward pass."""
    OPTIMIZER_STEP = "optimizer-step"
    """Gradient clipping, unscaling and optimizer.step()."""


class Verdict(StrEnum):
    """Whether a job fits."""

    UNSPECIFIED = "UNSPECIFIED"
    """Not known."""
    FITS = "FITS"
    """The upper bound fits, and the allocator's replay with this capacity succeeds; or it fitted
    when it was measured."""
    DOES_NOT_FIT = "DOES_NOT_FIT"
    """The lower bound does not fit; or it did not fit when it was measured."""
    UNCERTAIN = "UNCERTAIN"
    """Between the two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBreakdown:
    """Device-used bytes at the moment of the allocated peak, by what they are for."""

    parameter_bytes: int = 0
    """Parameters."""
    gradient_bytes: int = 0
    """Gradients of parameters alive at the peak."""
    optimizer_state_bytes: int = 0
    """Optimizer states."""
    buffer_bytes: int = 0
    """Buffers: BatchNorm statistics, position tables."""
    input_bytes: int = 0
    """The batch: inputs and targets."""
    activation_bytes: int = 0
    """Results of the forward pass kept for backward or by the loop."""
    temporary_bytes: int = 0
    """What lives for moments: gradients of activations, optimizer temporaries."""
    autocast_copy_bytes: int = 0
    """Low-precision copies of weights that autocast keeps."""
    workspace_bytes: int = 0
    """Library workspaces: cuBLAS, cuDNN."""
    context_bytes: int = 0
    """CUDA context and loaded kernels."""
    fragmentation_bytes: int = 0
    """The rest of what the allocator reserves: rounding and free pieces of segments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelState:
    """Sizes of the model's state, by arithmetic over its parameters."""

    parameter_count: int = 0
    """Number of parameters (elements), tied ones once."""
    parameter_bytes: int = 0
    """Bytes of all parameters."""
    gradient_bytes: int = 0
    """Bytes of the gradients of all parameters that get one."""
    optimizer_state_bytes: int = 0
    """Bytes of the optimizer's state on the GPU after its first step."""
    buffer_bytes: int = 0
    """Bytes of all buffers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleMemory:
    """Activation bytes of one module at the peak."""

    module: str = ""
    """Path as in named_modules()."""
    type: str = ""
    """Class name."""
    activation_bytes: int = 0
    """Activation bytes it allocated that are alive at the peak, children not included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """The memory a job takes on one GPU type, at one micro-batch size. All sizes in bytes."""

    gpu_type: str = ""
    """The GPU type it holds for."""
    micro_batch_size: int = 0
    """The micro-batch size it holds for."""
    peak_allocated_bytes: int = 0
    """Expected peak of what tensors hold (torch.cuda.max_memory_allocated)."""
    peak_reserved_bytes: int = 0
    """Expected peak of what the caching allocator takes from the driver
    (torch.cuda.max_memory_reserved)."""
    device_used_bytes: int = 0
    """Expected peak of what the driver shows for the process: peak_reserved_bytes and the CUDA
    context."""
    upper_bound_bytes: int = 0
    """Device-used bytes are below this with probability `confidence`."""
    lower_bound_bytes: int = 0
    """Device-used bytes are above this with probability `confidence`."""
    confidence: float = 0.0
    """Confidence of each of the two bounds, in (0, 1); not below the one asked for."""
    peak_phase: Phase = Phase.UNSPECIFIED
    """When in the step the allocated peak falls."""
    breakdown: MemoryBreakdown = field(default_factory=MemoryBreakdown)
    """What device_used_bytes consists of at the peak; adds up to it exactly."""
    model_state: ModelState = field(default_factory=ModelState)
    """What persists or is complete at some time of the step, whenever the peak falls."""
    top_modules: tuple[ModuleMemory, ...] = ()
    """The modules that hold most activation bytes at the peak, largest first. At most ten."""
    assumptions: tuple[str, ...] = ()
    """What the estimate takes for given, in sentences."""
    library_versions: Mapping[str, str] = field(default_factory=dict)
    """The library versions it holds for: `torch`, `torchvision`, ..."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSizeFormula:
    """The textbook formula: (capacity - fixed) / per sample."""

    fixed_bytes: int = 0
    """Parameters, gradients, optimizer states, buffers and CUDA context."""
    bytes_per_sample: int = 0
    """Activation bytes of one sample at the end of the forward pass."""
    batch_size: int = 0
    """What the formula says fits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSizePoint:
    """Memory at one batch size."""

    batch_size: int = 0
    """Micro-batch size."""
    peak_allocated_bytes: int = 0
    """Expected peak allocated bytes."""
    peak_reserved_bytes: int = 0
    """Expected peak reserved bytes, capacity unlimited."""
    device_used_bytes: int = 0
    """Expected device-used bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSizeRecommendation:
    """The largest batch for one GPU."""

    gpu: GpuTarget = field(default_factory=GpuTarget)
    """The GPU."""
    capacity_bytes: int = 0
    """Bytes a process can take on it."""
    max_batch_size: int = 0
    """Largest micro-batch size that fits, by replay with this capacity; 0 when not even 1 does."""
    max_device_used_bytes: int = 0
    """Expected device-used bytes at max_batch_size."""
    recommended_batch_size: int = 0
    """Recommended micro-batch size: leaves the headroom asked for and is a multiple of
    `multiple_of` where that is possible; 0 when nothing fits."""
    recommended_device_used_bytes: int = 0
    """Expected device-used bytes at recommended_batch_size."""
    multiple_of: int = 0
    """The multiple that was rounded down to."""
    formula: BatchSizeFormula = field(default_factory=BatchSizeFormula)
    """The textbook formula beside it."""
    curve: tuple[BatchSizePoint, ...] = ()
    """Batch size against bytes, for plotting; rising batch sizes."""
    reason: str = ""
    """Why this one; when nothing fits, why not and what would help."""
    confidence: float = 0.0
    """Confidence of the upper bound that fits at recommended_batch_size; not below the one asked
    for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remedy:
    """A change that makes a job fit. Fields that the remedy does not touch are not set."""

    description: str = ""
    """In words: `fits with micro-batch 24 x 43 steps`."""
    micro_batch_size: int = 0
    """The micro-batch size to use."""
    accumulation_steps: int = 0
    """The accumulation steps to use."""
    precision: Precision = Precision.UNSPECIFIED
    """The precision to use."""
    gpu_type: str = ""
    """The GPU type to use."""
    activation_checkpointing: bool = False
    """Activation checkpointing is to be used."""
    data_parallel: DataParallel | None = None
    """How ranks are to share their work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AccumulationPlan:
    """How a global batch is reached."""

    gpu: GpuTarget = field(default_factory=GpuTarget)
    """The GPU it is made for."""
    feasible: bool = False
    """Whether there is a plan. When not, `reason` says why and `remedies` what would help."""
    global_batch_size: int = 0
    """Samples per optimizer step over all ranks."""
    data_parallel_size: int = 0
    """Ranks."""
    micro_batch_size: int = 0
    """Samples in one forward and backward pass on one GPU."""
    accumulation_steps: int = 0
    """Forward and backward passes per optimizer step."""
    last_micro_batch_size: int = 0
    """Size of the last micro-batch: micro_batch_size where it divides, else smaller.
    ((accumulation_steps - 1) * micro_batch_size + last_micro_batch_size) * data_parallel_size
    equals global_batch_size."""
    max_micro_batch_size: int = 0
    """Largest micro-batch that fits when accumulating (gradients stay alive during forward)."""
    device_used_bytes: int = 0
    """Expected device-used bytes of this plan."""
    reason: str = ""
    """Why this one was chosen, or why there is none."""
    advice: tuple[str, ...] = ()
    """What to mind: scaling the loss, BatchNorm, memory."""
    remedies: tuple[Remedy, ...] = ()
    """What would make it feasible."""
    confidence: float = 0.0
    """Confidence of the upper bound that fits for full micro-batches; not below the one asked
    for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Whether the job fits on one GPU as it is described."""

    gpu: GpuTarget = field(default_factory=GpuTarget)
    """The GPU."""
    verdict: Verdict = Verdict.UNSPECIFIED
    """The answer."""
    capacity_bytes: int = 0
    """Bytes a process can take on it."""
    device_used_bytes: int = 0
    """Expected device-used bytes; as measured, where the verdict rests on a measurement."""
    upper_bound_bytes: int = 0
    """Upper bound of device-used bytes; as measured, where the verdict rests on a measurement."""
    spare_bytes: int = 0
    """Bytes to spare: capacity_bytes - upper_bound_bytes, 0 when that is negative."""
    missing_bytes: int = 0
    """Bytes missing: upper_bound_bytes - capacity_bytes, 0 when that is negative."""
    reason: str = ""
    """The verdict in a sentence, which says so when it rests on a measurement."""
    remedies: tuple[Remedy, ...] = ()
    """What would make it fit, when it does not for sure."""
    confidence: float = 0.0
    """Confidence of each of the two bounds that the verdict rests on; not below the one asked
    for."""
