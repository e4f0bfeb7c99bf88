"""The job of a model that a function of the user's own file makes.

The file is executed here, on the user's side; what is sent is the captured graph. What the options
and the job file say comes before what the function gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from memplan.cli import factory
from memplan.types import (
    Assumptions,
    DataParallel,
    Loss,
    Optimizer,
    OptimizerType,
    Precision,
    TrainingJob,
)

__all__ = ["captured"]

_HALF = {Precision.BF16: "bfloat16", Precision.FP16: "float16"}


def captured(model: str, job: TrainingJob) -> TrainingJob:
    """The job with the model that the function makes, captured.

    Raises `CaptureError`, and click.UsageError for a file, a function or inputs that are not there.
    """
    try:
        import memplan.capturing
    except ImportError as error:
        raise click.UsageError(f"{model} needs PyTorch here: pip install torch.") from error
    given = factory.call(model)
    said = _of_options(job, optimizer_given="optimizer" in given)
    arguments = {"optimizer": Optimizer(), **given, **said}
    if "inputs" not in arguments:
        raise click.UsageError(
            f"{model} needs --input, such as --input 3x224x224, or inputs in what it returns."
        )
    if arguments.get("precision") in _HALF:
        import torch

        arguments["module"].to(getattr(torch, _HALF[arguments["precision"]]))
    made = memplan.capturing.capture_job(**arguments)
    return replace(
        job,
        model=made.model,
        inputs=(),
        loss=made.loss,
        optimizer=made.optimizer,
        precision=made.precision,
        assumptions=made.assumptions,
        data_parallel=_either(job.data_parallel, made.data_parallel),
        cudnn_benchmark=job.cudnn_benchmark or made.cudnn_benchmark,
        micro_batch_size=job.micro_batch_size or made.micro_batch_size,
    )


def _either(said: DataParallel, found: DataParallel) -> DataParallel:
    return found if said == DataParallel() else said


def _of_options(job: TrainingJob, *, optimizer_given: bool) -> Mapping[str, Any]:
    """The arguments of `capture_job` that the options or the job file say."""
    found: dict[str, Any] = {}
    if job.inputs:
        found["inputs"] = tuple(i for i in job.inputs if not i.name)
        found["kwargs"] = {i.name: i for i in job.inputs if i.name}
    if job.loss is not Loss.UNSPECIFIED:
        found["loss"] = None if job.loss is Loss.MODEL else job.loss
    if job.precision is not Precision.UNSPECIFIED:
        found["precision"] = job.precision
    if job.assumptions != Assumptions():
        found["assumptions"] = job.assumptions
    if job.optimizer != Optimizer():
        if optimizer_given and job.optimizer.type is OptimizerType.UNSPECIFIED:
            raise click.UsageError(
                "The function gives the optimizer with its options: change them there, or name "
                "another with --optimizer."
            )
        found["optimizer"] = job.optimizer
    return found
