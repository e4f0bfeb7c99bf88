"""torch.export of a step, under tensors without data, and what to say when it fails."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from memplan.capturing.batches import Batch
from memplan.capturing.lives import lives_noted
from memplan.capturing.locating import line_of_error, module_of_error
from memplan.capturing.pretending import as_in_training
from memplan.capturing.recomputing import regions_noted
from memplan.capturing.wrapping import Step
from memplan.errors import CaptureError
from memplan.fakes import modes

__all__ = ["export", "new_mode"]

_VALUE = re.compile(r"data-dependent|Could not guard on|unbacked|_local_scalar_dense|u\d+ \(")
_REMEDIES = (
    (
        _VALUE,
        "what it does depends on the values of tensors. Compute with tensors instead (torch.where, "
        "masks), take sizes from shapes, or give a number where `.item()` is called",
    ),
    (
        re.compile(r"not compiled with CUDA|No CUDA GPUs|Found no NVIDIA", re.I),
        "it names a device. Take the device of its input instead (`device=x.device`)",
    ),
    (
        re.compile(r"on the same device|two (different )?devices"),
        "it puts a tensor on a device of its own. Take that of its input (`device=x.device`)",
    ),
    (
        re.compile(r"got FakeTensor|pack_padded_sequence"),
        "it takes a size from the values of a tensor. Take sizes from shapes; instead of packed "
        "sequences pass padded ones",
    ),
    (
        re.compile(r"flex_attention"),
        "flex_attention is compiled code. Use scaled_dot_product_attention",
    ),
)


def new_mode() -> FakeTensorMode:
    """Within, tensors have shapes and no data."""
    return FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)


def export(
    step: Step,
    batch: Batch,
    tensors: Sequence[torch.Tensor],
    *,
    dynamic: bool,
    conditions: bool,
) -> ExportedProgram:
    """The step's operators. `dynamic`: for every batch size; `conditions`: what those read from
    tensors are taken to be.

    Not strictly: the code is run, and everything is seen that it does in training.

    Raises `CaptureError`.
    """
    dims = tuple(
        {i: Dim.AUTO if per_sample and dynamic else Dim.STATIC for i, (_, per_sample) in sizes}
        for sizes in (list(enumerate(t.shape)) for t in batch.tensors)
    )
    try:
        pretending = as_in_training(step.returned.assume, conditions=conditions)
        values = contextlib.nullcontext() if dynamic else modes.followed(step.returned.assume)
        with _quiet(), lives_noted(), regions_noted(), _uncompiled(), pretending, values:
            return torch.export.export(step, tuple(tensors), dynamic_shapes=(dims,), strict=False)
    except CaptureError as error:
        if error.location:
            raise
        raise CaptureError(error.message, location=line_of_error(error)) from error.__cause__
    except Exception as error:  # whatever the module's code and torch.export raise
        raise _explained(error, step) from error


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """What torch.compile compiled is called as it was before."""
    config: Any = torch._dynamo.config
    with config.patch(error_on_nested_fx_trace=False):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch.export says on stderr what it then raises."""
    log = logging.getLogger("torch")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _explained(error: Exception, step: Step) -> CaptureError:
    """What went wrong, the line where, and what to do about it."""
    text = str(error).strip() or type(error).__name__
    location = line_of_error(error) or module_of_error(error, step.module)
    line = next(filter(None, (part.strip() for part in text.splitlines())), "")
    about = f"{text}\n{location}"
    remedy = next((said for pattern, said in _REMEDIES if pattern.search(about)), "")
    said = f"The module cannot be captured: {line[:300].rstrip('.')}"
    if remedy:
        said = f"The module cannot be captured: {remedy} ({line[:300].rstrip('.')})"
    return CaptureError(f"{said}.", location=location)
