"""A model written down layer by layer -> a module, with input features inferred.

The shape of one sample is followed from layer to layer by arithmetic before any module is made: a
wrong number is refused with the layer's place in the request, the number given and the number that
flows in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import nn

from memplan.types import DataType, InputTensor, Layer, LayerStack, Loss, Residual, TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models.built import BuiltModel
from memplan_server.models.construction import construction
from memplan_server.models.images import float_type
from memplan_server.models.layer_flow import Flow, Input, Place
from memplan_server.models.layer_kinds import KINDS
from memplan_server.models.layer_modules import ResidualBlock, Stack
from memplan_server.models.layer_shapes import MOST_ELEMENTS, spoken

__all__ = ["DEEPEST", "MOST_LAYERS", "build"]

FIELD = "job.model.layer_stack"
MOST_LAYERS = 2_000
"""Layers after repeats are unrolled, those of residual layers included."""
DEEPEST = 16
"""Residual layers within residual layers."""

_INDICES = (DataType.INT64, DataType.INT32)
_FLOATS = (DataType.FLOAT32, DataType.FLOAT16, DataType.BFLOAT16)


def build(job: TrainingJob, stack: LayerStack) -> BuiltModel:
    """The stack as a module. Raises `InvalidJob`."""
    given = _input(job)
    if job.loss is Loss.MODEL:
        said = "A layer stack computes no loss of its own; name another."
        raise InvalidJob(Violation("job.loss", said))
    _check_size(stack.layers)
    known = given.dtype is not DataType.UNSPECIFIED
    found = Input(indices=given.dtype in _INDICES if known else None)
    with construction(FIELD):
        module, _ = _sequence(stack.layers, Flow(shape=given.shape, input=found), f"{FIELD}.layers")
    dtype = given.dtype if known else DataType.INT64 if found.indices else float_type(job)
    return BuiltModel(
        module=module.train(),
        inputs=(replace(given, name="", dtype=dtype),),
        assumptions=tuple(found.assumptions),
    )


def _input(job: TrainingJob) -> InputTensor:
    """The one input that a stack takes."""
    if len(job.inputs) != 1:
        said = f"A layer stack takes one input, such as 1x28x28; {len(job.inputs)} are given."
        raise InvalidJob(Violation("job.inputs", said))
    given = job.inputs[0]
    allowed = (DataType.UNSPECIFIED, *_FLOATS, *_INDICES)
    if given.dtype not in allowed:
        said = f"A layer stack takes numbers or indices (int64), not {given.dtype.value}."
        raise InvalidJob(Violation("job.inputs[0].dtype", said))
    if not given.shape:
        said = "A layer stack needs at least one dimension besides the batch: 784, or 1x28x28."
        raise InvalidJob(Violation("job.inputs[0].shape", said))
    return given


def _check_size(layers: Sequence[Layer]) -> None:
    if _depth_exceeds(layers, DEEPEST):
        said = f"Layers are nested more than {DEEPEST} deep."
        raise InvalidJob(Violation(f"{FIELD}.layers", said))
    if _unrolled(layers) > MOST_LAYERS:
        said = f"There are more than {MOST_LAYERS:,} layers once repeats are unrolled."
        raise InvalidJob(Violation(f"{FIELD}.layers", said))


def _depth_exceeds(layers: Sequence[Layer], depth: int) -> bool:
    if depth == 0:
        return bool(layers)
    nested = (layer.residual for layer in layers if layer.residual is not None)
    return any(_depth_exceeds((*r.body, *r.shortcut), depth - 1) for r in nested)


def _unrolled(layers: Sequence[Layer]) -> int:
    total = 0
    for layer in layers:
        inner = 0 if layer.residual is None else _unrolled(layer.residual.body)
        inner += 0 if layer.residual is None else _unrolled(layer.residual.shortcut)
        total += max(layer.repeat, 1) * (1 + inner)
    return total


def _sequence(layers: Sequence[Layer], flow: Flow, path: str) -> tuple[nn.Module, Flow]:
    """Layers one after the other."""
    if not layers:
        raise InvalidJob(Violation(path, "must have at least one layer."))
    named: list[tuple[str, nn.Module]] = []
    for index, layer in enumerate(layers):
        place = _place(layer, index, path)
        for name in _names(layer, place, taken={n for n, _ in named}, index=index):
            module, flow = _layer(layer, flow, place)
            if math.prod(flow.shape) > MOST_ELEMENTS:
                place.fail("", f"gives {spoken(flow.shape)}: more than 2^40 elements per sample.")
            named.append((name, module))
    return Stack(named), flow


def _place(layer: Layer, index: int, path: str) -> Place:
    at = f"{path}[{index}]"
    kinds = [kind for kind in (*KINDS, "residual") if getattr(layer, kind) is not None]
    if len(kinds) != 1:
        raise InvalidJob(
            Violation(at, f"must be exactly one of {', '.join((*KINDS, 'residual'))}.")
        )
    return Place(path=at, kind=kinds[0], label=layer.name or f"{index}.{kinds[0]}")


def _names(layer: Layer, place: Place, *, taken: set[str], index: int) -> Iterator[str]:
    """Module names of a layer and its copies: `3.linear`, or `3.linear.0` and on."""
    name = layer.name.replace(".", "_") or place.label
    if any(other == name or other.startswith(f"{name}.") for other in taken) or name.isdigit():
        name = f"{index}.{name}"
    if layer.repeat <= 1:
        yield name
    else:
        yield from (f"{name}.{copy}" for copy in range(layer.repeat))


def _layer(layer: Layer, flow: Flow, place: Place) -> tuple[nn.Module, Flow]:
    if layer.residual is not None:
        return _residual(layer.residual, flow, place)
    return KINDS[place.kind](getattr(layer, place.kind), flow, place)


def _residual(residual: Residual, flow: Flow, place: Place) -> tuple[nn.Module, Flow]:
    place.numbers(flow)
    path = f"{place.path}.residual"
    body, out = _sequence(residual.body, flow, f"{path}.body")
    shortcut, beside = None, flow
    if residual.shortcut:
        shortcut, beside = _sequence(residual.shortcut, flow, f"{path}.shortcut")
    if out.shape != beside.shape:
        kept = "gives" if residual.shortcut else "passes on"
        said = (
            f"cannot add its body's {spoken(out.shape)} to the {spoken(beside.shape)} that its "
            f"shortcut {kept}; a shortcut with a convolution of kernel 1 (or a linear layer) can "
            "change channels and, by its stride, sizes."
        )
        place.fail("shortcut" if residual.shortcut else "body", said)
    return ResidualBlock(body, shortcut), out.to(*out.shape)
