"""The one image (or video) that a vision model takes.

image, assumptions = resolve(job, Wanted(model="timm/resnet18", shape=(3, 224, 224)))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memplan.types import DataType, InputTensor, Precision, TrainingJob
from memplan_server.errors import InvalidJob, Violation

__all__ = ["Wanted", "float_type", "resolve", "spoken_shape"]

_LAYOUTS = {3: "CxHxW", 4: "CxTxHxW"}
_FLOATS = (DataType.FLOAT32, DataType.FLOAT16, DataType.BFLOAT16)
_WEIGHTS = {Precision.BF16: DataType.BFLOAT16, Precision.FP16: DataType.FLOAT16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a model takes."""

    model: str
    """Its catalog name, for messages."""
    shape: tuple[int, ...]
    """The default shape of one sample: channels first, then (time,) height, width."""
    name: str = "x"
    """forward()'s name for it."""
    remedy: str = ""
    """What to do about another number of channels, as a sentence."""


def float_type(job: TrainingJob) -> DataType:
    """The type that the job's loop gives its images in."""
    return _WEIGHTS.get(job.precision, DataType.FLOAT32)


def spoken_shape(shape: Sequence[int]) -> str:
    """(3, 224, 224) as `3x224x224`."""
    return "x".join(map(str, shape)) or "a scalar"


def resolve(job: TrainingJob, wanted: Wanted) -> tuple[InputTensor, tuple[str, ...]]:
    """The input with shape and element type set, to be passed by position, and assumptions made.

    Raises `InvalidJob` when the job's inputs are not one image of the right layout.
    """
    dtype = float_type(job)
    if not job.inputs:
        shown = spoken_shape(wanted.shape)
        assumed = f"the input is {shown}, the default of {wanted.model}"
        return InputTensor(shape=wanted.shape, dtype=dtype), (assumed,)
    if len(job.inputs) > 1:
        said = f"{wanted.model} takes one input, {wanted.name}, not {len(job.inputs)}."
        raise InvalidJob(Violation("job.inputs", said))
    given = job.inputs[0]
    violation = _name(given, wanted) or _dtype(given, wanted) or _shape(given.shape, wanted)
    if violation is not None:
        raise InvalidJob(violation)
    return replace(given, name="", dtype=given.dtype if _has_type(given) else dtype), ()


def _has_type(given: InputTensor) -> bool:
    return given.dtype is not DataType.UNSPECIFIED


def _name(given: InputTensor, wanted: Wanted) -> Violation | None:
    if given.name in ("", wanted.name):
        return None
    said = f"{wanted.model} has no input {given.name!r}; its only input is {wanted.name}."
    return Violation("job.inputs[0].name", said)


def _dtype(given: InputTensor, wanted: Wanted) -> Violation | None:
    if not _has_type(given) or given.dtype in _FLOATS:
        return None
    said = f"{wanted.model} takes floating-point images, not {given.dtype.value}."
    return Violation("job.inputs[0].dtype", said)


def _shape(shape: tuple[int, ...], wanted: Wanted) -> Violation | None:
    at, shown = "job.inputs[0].shape", spoken_shape(shape)
    layout, channels = _LAYOUTS[len(wanted.shape)], wanted.shape[0]
    like = f"{layout}, such as {spoken_shape(wanted.shape)}"
    if len(shape) != len(wanted.shape):
        return Violation(at, f"{wanted.model} takes {like}, not {shown}.")
    if shape[0] == channels:
        return None
    if channels in shape:
        rest = [*shape]
        rest.remove(channels)
        moved = spoken_shape((channels, *rest))
        given = "HxWxC" if shape[-1] == channels and len(shape) == 3 else "channels not first"
        said = f"{shown} looks like {given}; {wanted.model} takes {layout}: give {moved}."
        return Violation(at, said)
    said = f"{shown} has {_channels(shape[0])}; {wanted.model} takes {channels}: {like}."
    return Violation(at, f"{said} {wanted.remedy}".rstrip())


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
