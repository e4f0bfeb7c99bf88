"""A job made ready to run for real: a model with values, data, and targets known beforehand.

made = make(job, device)
made.built.module.to(device)            # the caller moves the model
loop = loop_over(made, observer)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memplan.fakes.hardware import as_on_hardware
from memplan.types import DataParallelStrategy, Loss, Precision, TrainingJob
from memplan_server import models
from memplan_server.errors import InvalidJob
from memplan_server.measure.values import RandomData, fill_parameters
from memplan_server.models import BuiltModel, extract_outputs
from memplan_server.models.construction import made_on
from memplan_server.simulate import placing
from memplan_server.training import Loop, Observer, TargetSpec, Unobserved, prepare
from memplan_server.training.loop import loss_of, target_specs
from memplan_server.validation.jobs import measuring_violations

__all__ = ["ALONE", "LATE_TARGETS", "Made", "loop_over", "make", "set_backends"]

ALONE = "it ran as the only rank: what NCCL takes for several is not in it"
LATE_TARGETS = (
    "the first targets were made after the first forward pass, since their shape could not be "
    "found out before"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A model on the host and what the loop needs besides."""

    job: TrainingJob
    built: BuiltModel
    device: torch.device
    targets: tuple[TargetSpec, ...]
    notes: tuple[str, ...]


def make(job: TrainingJob, device: torch.device) -> Made:
    """Build the normalised job's model on the host, with values, number format and layout.

    Raises `UnknownName` and `InvalidJob` as `models.build` does.
    """
    for violation in measuring_violations(job, "job"):
        raise InvalidJob(violation)
    with made_on("cpu"):
        built = models.build(job)
    fill_parameters(built.module)
    prepare(job, built.module)
    targets: tuple[TargetSpec, ...] | None = ()
    notes = [ALONE] if job.data_parallel.strategy is DataParallelStrategy.DDP else []
    if not built.returns_loss and loss_of(job, built) is not Loss.MEAN:
        targets = _targets(job, built)
    if targets is None:
        notes.append(LATE_TARGETS)
    return Made(
        job=job,
        built=built,
        device=device,
        targets=targets or (),
        notes=tuple(notes),
    )


def set_backends(job: TrainingJob) -> None:
    """Process-wide: matrix products in TensorFloat-32 for TF32 jobs, and cudnn.benchmark.

    Everything else stays as PyTorch has it: without that, cuDNN convolutions may use it and matrix
    products may not.
    """
    torch.backends.cudnn.benchmark = job.cudnn_benchmark
    torch.set_float32_matmul_precision("high" if job.precision is Precision.TF32 else "highest")


def loop_over(made: Made, observer: Observer | None = None, micro_steps: int | None = None) -> Loop:
    """The training loop over the model, which is on the device by now."""
    job = made.job
    return Loop(
        job=job,
        built=made.built,
        device=made.device,
        batch_size=job.micro_batch_size,
        micro_steps=micro_steps or max(1, job.loop.accumulation_steps),
        observer=observer or Unobserved(),
        data=RandomData(made.built),
        target_specs=list(made.targets),
    )


def _targets(job: TrainingJob, built: BuiltModel) -> tuple[TargetSpec, ...] | None:
    """What the targets look like, from a forward pass without data; None when it needs values.

    It runs as on the CPU whatever the device: fake CUDA tensors would start CUDA.
    """
    device = torch.device("cpu")
    try:
        with (
            placing.restored(built.module),
            as_on_hardware(),
            FakeTensorMode(allow_non_fake_inputs=True),
            torch.no_grad(),
        ):
            placing.place(built.module, Unobserved(), device)
            loop = Loop(
                job=job, built=built, device=device, batch_size=job.micro_batch_size, micro_steps=1
            )
            return tuple(target_specs(loss_of(job, built), extract_outputs(loop.outputs())))
    except Exception:  # whatever a model raises that looks at its data
        return None
