"""The job's own training loop under FakeTensorMode, on the CPU's kernels: what peers look at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from memplan.types import DataType, Precision, TrainingJob
from memplan_server import models
from memplan_server.simulate import placing
from memplan_server.training import Loop, Unobserved, prepare

__all__ = ["build", "fake_loop"]

_CPU = torch.device("cpu")


class _Answers(TorchDispatchMode):
    """`.item()` on tensors without data gives `value`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.value = 1.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return self.value
        return func(*args, **(kwargs or {}))


class _Observer(Unobserved):
    def __init__(self, answers: _Answers) -> None:
        self._answers = answers

    @contextlib.contextmanager
    def scalars_are(self, value: float) -> Iterator[None]:
        before, self._answers.value = self._answers.value, value
        try:
            yield
        finally:
            self._answers.value = before


def build(job: TrainingJob) -> models.BuiltModel:
    """The job's model on the meta device, in the number format and layout of the job."""
    built = models.build(job)
    prepare(job, built.module)
    return built


@contextlib.contextmanager
def fake_loop(job: TrainingJob, built: models.BuiltModel) -> Iterator[Loop]:
    """The loop, started, at the job's micro-batch size. The model is put back afterwards."""
    if job.precision is Precision.AMP_FP16:  # CPU autocast takes no half inputs
        built = replace(built, inputs=tuple(_float32(spec) for spec in built.inputs))
    answers = _Answers()
    with placing.restored(built.module), FakeTensorMode(), answers:
        placing.place(built.module, Unobserved(), _CPU)
        loop = Loop(
            job=job,
            built=built,
            device=_CPU,
            batch_size=job.micro_batch_size,
            micro_steps=min(2, max(1, job.loop.accumulation_steps)),
            observer=_Observer(answers),
        )
        loop.start()
        yield loop


def _float32(spec: Any) -> Any:
    return replace(spec, dtype=DataType.FLOAT32) if spec.dtype is DataType.FLOAT16 else spec
