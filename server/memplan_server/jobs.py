"""Training jobs with their defaults written out, and what identifies one.

    job = normalize(job)                        # nothing is left to a default
    key = digest(timeline_part(job))            # equal for jobs with the same timeline

What depends on the model stays open for the one who builds it: a loss, an input or its element type
that is not given, layer features that are inferred.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from memplan.types import (
    Activation,
    ActivationType,
    AllocatorSettings,
    CatalogModel,
    Convolution,
    DataParallel,
    DataParallelStrategy,
    Dropout,
    GradientClipping,
    Layer,
    LayerStack,
    Linear,
    MemoryFormat,
    Model,
    MultiHeadAttention,
    Normalization,
    NormalizationType,
    Optimizer,
    OptimizerImplementation,
    OptimizerType,
    Padding,
    Pooling,
    PoolingType,
    Precision,
    Recurrent,
    RecurrentType,
    Residual,
    Routing,
    SequencePooling,
    SequencePoolingType,
    TrainingJob,
    TrainingLoop,
    TransformerEncoderLayer,
    Upsample,
    ZeroGrad,
)
from memplan.wire import to_proto

__all__ = ["LAYER_KINDS", "digest", "job_digest", "normalize", "timeline_part"]

T = TypeVar("T")

LAYER_KINDS = tuple(f for f in Layer.__dataclass_fields__ if f not in ("name", "repeat"))
"""Fields of `Layer` that say what the layer is: the members of the oneof."""

SINGLE_BY_DEFAULT = (OptimizerType.ADAFACTOR, OptimizerType.CUSTOM)
"""torch.optim.Adafactor picks its loop over parameters by itself, the other classes foreach."""

_LAYER_DEFAULTS: Mapping[type, Mapping[str, Any]] = {
    Linear: {"bias": True},
    Convolution: {
        "stride": (1,),
        "padding": (0,),
        "dilation": (1,),
        "groups": 1,
        "bias": True,
        "output_padding": (0,),
    },
    Dropout: {"p": 0.5},
    Activation: {"type": ActivationType.RELU},
    MultiHeadAttention: {"bias": True},
    TransformerEncoderLayer: {
        "dim_feedforward": 2048,
        "dropout": 0.1,
        "activation": ActivationType.RELU,
    },
    Recurrent: {"type": RecurrentType.LSTM, "num_layers": 1},
    Upsample: {"scale_factor": 2},
    SequencePooling: {"type": SequencePoolingType.MEAN},
}


def normalize(job: TrainingJob) -> TrainingJob:
    """The same job with every default of the contract written out. `job` is valid."""
    return replace(
        _filled(job, precision=Precision.FP32, memory_format=MemoryFormat.CONTIGUOUS),
        model=_model(job.model),
        optimizer=_optimizer(job.optimizer),
        loop=_loop(job.loop),
        data_parallel=_data_parallel(job.data_parallel),
        assumptions=_filled(
            job.assumptions,
            routing=Routing.BALANCED,
            padding=Padding.NONE,
            images_per_sample=1,
        ),
    )


def timeline_part(job: TrainingJob) -> TrainingJob:
    """What the timeline of a normalised job depends on, whatever the batch size.

    The allocator works on the timeline afterwards, and a timeline has two micro-batches a step
    however many the job accumulates over.
    """
    return replace(
        job,
        allocator=AllocatorSettings(),
        loop=replace(job.loop, accumulation_steps=min(job.loop.accumulation_steps, 2)),
        micro_batch_size=0,
    )


def digest(job: TrainingJob, *further: str) -> str:
    """A name for a job and whatever else counts, equal when all of it is: 64 hex digits."""
    sha = hashlib.sha256(to_proto(job).SerializeToString(deterministic=True))
    for part in further:
        sha.update(b"\0" + part.encode())
    return sha.hexdigest()


def job_digest(job: TrainingJob) -> str:
    """What names a normalised job in profiles: the same at every micro-batch size."""
    return digest(replace(job, micro_batch_size=0))


def _filled(value: T, **defaults: Any) -> T:
    """`value` with `defaults` in the fields that were not given, which equal their own default."""
    fields = type(value).__dataclass_fields__  # type: ignore[attr-defined]
    missing = {n: d for n, d in defaults.items() if getattr(value, n) == fields[n].default}
    return replace(value, **missing)  # type: ignore[type-var]


def _model(model: Model) -> Model:
    if model.catalog is not None:
        return Model(catalog=_catalog_model(model.catalog))
    if model.graph is not None:
        return Model(graph=model.graph)
    assert model.layer_stack is not None
    return Model(layer_stack=LayerStack(layers=_layers(model.layer_stack.layers)))


def _catalog_model(model: CatalogModel) -> CatalogModel:
    return replace(model, config={key: _whole(value) for key, value in model.config.items()})


def _whole(value: Any) -> Any:
    """Numbers without a fraction as integers, inside lists and mappings too."""
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _optimizer(optimizer: Optimizer) -> Optimizer:
    typed = _filled(optimizer, type=OptimizerType.SGD)
    how = OptimizerImplementation
    defaults = {
        "implementation": how.SINGLE if typed.type in SINGLE_BY_DEFAULT else how.FOREACH,
        "weight_decay": 0.01 if typed.type is OptimizerType.ADAMW else 0.0,
    }
    groups = tuple(_filled(group, **defaults) for group in typed.groups)
    return replace(_filled(typed, **defaults), groups=groups)


def _loop(loop: TrainingLoop) -> TrainingLoop:
    return _filled(
        loop,
        zero_grad=ZeroGrad.BEFORE_FORWARD,
        zero_grad_set_to_none=True,
        gradient_clipping=GradientClipping.NONE,
        accumulation_steps=1,
        keep_outputs=True,
    )


def _data_parallel(data_parallel: DataParallel) -> DataParallel:
    """None at all is the same as not given; options of DDP say that it is."""
    if data_parallel.strategy is DataParallelStrategy.NONE or data_parallel == DataParallel():
        return DataParallel()
    if data_parallel.strategy is DataParallelStrategy.FSDP:
        return _filled(data_parallel, reshard_after_forward=True)
    return _filled(data_parallel, strategy=DataParallelStrategy.DDP, bucket_cap_mb=25)


def _layers(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    return tuple(map(_layer, layers))


def _layer(layer: Layer) -> Layer:
    kind = next(name for name in LAYER_KINDS if getattr(layer, name) is not None)
    return replace(_filled(layer, repeat=1), **{kind: _layer_kind(getattr(layer, kind))})


def _layer_kind(kind: Any) -> Any:
    if isinstance(kind, Residual):
        return Residual(body=_layers(kind.body), shortcut=_layers(kind.shortcut))
    if isinstance(kind, Pooling):
        return _pooling(kind)
    if isinstance(kind, Normalization):
        typed = _filled(kind, type=NormalizationType.BATCH)
        return _filled(typed, affine=typed.type is not NormalizationType.INSTANCE)
    return _filled(kind, **_LAYER_DEFAULTS.get(type(kind), {}))


def _pooling(pooling: Pooling) -> Pooling:
    typed = _filled(pooling, type=PoolingType.MAX)
    if typed.type in (PoolingType.ADAPTIVE_MAX, PoolingType.ADAPTIVE_AVERAGE):
        return _filled(typed, output_size=(1,))
    return _filled(typed, stride=typed.kernel_size, padding=(0,))
