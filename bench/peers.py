"""PyTorch's own way to the same question: MemTracker under FakeTensorMode, on the CPU's kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from memplan.types import InputTensor, MemoryFormat, Precision, TrainingJob
from memplan_server import models
from memplan_server.simulate import placing
from memplan_server.training import optimizers

__all__ = ["build", "fake_tensor_peak_bytes", "mem_tracker_steps", "steps"]

_AUTOCAST = {Precision.AMP_FP16: torch.float16, Precision.AMP_BF16: torch.bfloat16}


class _NoRecorder:
    def category(self, category: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def fake_tensor_peak_bytes(job: TrainingJob) -> int:
    """MemTracker's peak of two steps, from the line through two batch sizes."""
    low, high = 32, 64
    at_low, at_high = (_peak(replace(job, micro_batch_size=n)) for n in (low, high))
    return at_low + (at_high - at_low) * (job.micro_batch_size - low) // (high - low)


_peaks: dict[str, int] = {}


def _peak(job: TrainingJob) -> int:
    if repr(job) not in _peaks:
        _peaks[repr(job)] = mem_tracker_steps(job, build(job))
    return _peaks[repr(job)]


def build(job: TrainingJob) -> models.BuiltModel:
    """The job's model on the meta device, laid out as the job says."""
    built = models.build(job)
    if job.memory_format is MemoryFormat.CHANNELS_LAST:
        built.module.to(memory_format=torch.channels_last)
    return built


def mem_tracker_steps(job: TrainingJob, built: models.BuiltModel) -> int:
    """Two training steps under MemTracker; the peak in bytes."""
    device = torch.device("cpu")
    with placing.restored(built.module), FakeTensorMode():
        placing.place(built.module, _NoRecorder(), device)  # type: ignore[arg-type]
        optimizer = optimizers.make(job.optimizer, built.module.parameters())
        tracker = MemTracker()
        tracker.track_external(built.module, optimizer)
        with tracker:
            for _ in steps(job, built, optimizer, device, 2):
                tracker.reset_mod_stats()
        peaks = tracker.get_tracker_snapshot("peak")
    return max(int(peak["Total"]) for peak in peaks.values())


def steps(
    job: TrainingJob,
    built: models.BuiltModel,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    count: int,
) -> Iterator[int]:
    """Execute `count` plain training steps, yielding after each."""
    dtype = _AUTOCAST.get(job.precision)
    for step in range(count):
        named = {s.name: _input(job, s, device) for s in (*built.inputs, *built.labels) if s.name}
        positional = [_input(job, s, device) for s in built.inputs if not s.name]
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            outputs = built.module(*positional, **named)
            loss = _loss(built, outputs)
        loss.backward()
        optimizer.step()
        yield step


def _input(job: TrainingJob, spec: InputTensor, device: torch.device) -> torch.Tensor:
    dtype = getattr(torch, spec.dtype.value)
    if dtype == torch.float16 and job.precision is Precision.AMP_FP16:
        dtype = torch.float32  # CPU autocast takes no half inputs into float32 layers
    layout = torch.contiguous_format
    if job.memory_format is MemoryFormat.CHANNELS_LAST and len(spec.shape) == 3:
        layout = torch.channels_last
    shape = (job.micro_batch_size, *spec.shape)
    return torch.zeros(shape, dtype=dtype, device=device).contiguous(memory_format=layout)


def _loss(built: models.BuiltModel, outputs: Any) -> torch.Tensor:
    if built.returns_loss:
        return models.extract_loss(outputs)
    result = models.extract_outputs(outputs)[0]
    target = torch.zeros(result.shape[0], dtype=torch.int64, device=result.device)
    return torch.nn.functional.cross_entropy(result, target)
