"""Jobs in few words, and what building them gives."""

from __future__ import annotations

from typing import Any

import torch

from memplan.types import (
    CatalogModel,
    DataType,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    Model,
    TrainingJob,
)
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import BuiltModel, build


def named(name: str, *inputs: InputTensor, task: str = "", **fields: Any) -> TrainingJob:
    """A job of a catalog model; `config` and the job's own fields by keyword."""
    model = CatalogModel(name=name, config=fields.pop("config", {}), task=task)
    return TrainingJob(model=Model(catalog=model), inputs=inputs, micro_batch_size=4, **fields)


def stacked(
    shape: tuple[int, ...],
    *layers: Layer,
    dtype: DataType = DataType.UNSPECIFIED,
    **fields: Any,
) -> TrainingJob:
    """A job of a layer stack with one input."""
    return TrainingJob(
        model=Model(layer_stack=LayerStack(layers=layers)),
        inputs=(InputTensor(shape=shape, dtype=dtype),),
        micro_batch_size=4,
        **fields,
    )


def linear(out_features: int, in_features: int = 0) -> Layer:
    """A linear layer."""
    return Layer(linear=Linear(out_features=out_features, in_features=in_features))


def violation(job: TrainingJob) -> Violation:
    """The one rule that the job breaks."""
    try:
        build(job)
    except InvalidJob as error:
        (only,) = error.violations
        return only
    raise AssertionError("the job is accepted")


def parameters(built: BuiltModel) -> int:
    """Elements of all parameters, tied ones once. All of them are on the meta device."""
    found = list(built.module.parameters())
    assert all(p.is_meta and p.dtype == torch.float32 for p in found)
    assert all(b.is_meta for b in built.module.buffers())
    assert built.module.training
    return sum(p.numel() for p in found)


def output_shape(built: BuiltModel, batch: int = 2) -> tuple[int, ...]:
    """Shape of the module's output for a batch of its inputs, by PyTorch's own meta kernels."""
    tensors = [
        torch.empty((batch, *i.shape), dtype=getattr(torch, i.dtype.value), device="meta")
        for i in built.inputs
    ]
    output: torch.Tensor = built.module(*tensors)
    return tuple(output.shape)
