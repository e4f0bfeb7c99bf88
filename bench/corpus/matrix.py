"""The jobs that are measured: a fixed matrix, the most telling ones first.

    python bench/corpus/matrix.py           # lists them

A run that is cut short has measured the beginning of the list: every kind of model once, then the
largest batch of each, then small batches, number formats, optimizers and options.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from memplan import jobfile
from memplan.types import (
    AllocatorSettings,
    DataParallel,
    DataParallelStrategy,
    GradientClipping,
    MemoryFormat,
    Optimizer,
    OptimizerImplementation,
    OptimizerType,
    Precision,
    TrainingJob,
    TrainingLoop,
)
from memplan_server.jobs import normalize

__all__ = ["FAMILIES", "NEAR", "Entry", "matrix"]

NEAR = 0
"""Instead of a batch size: the largest that the estimate calls safe on the GPU measured."""

_LLAMA = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}


def _conv(channels: int) -> list[Any]:
    convolution = {"out_channels": channels, "kernel_size": 3, "padding": 1}
    return [{"conv": convolution}, "batch_norm", "relu"] * 2


def _up(channels: int) -> list[Any]:
    transposed = {"out_channels": channels, "kernel_size": 2, "stride": 2}
    return [{"conv_transpose": transposed}, *_conv(channels)]


_UNET = [
    *_conv(32),
    *({"max_pool": 2}, *_conv(64), {"max_pool": 2}, *_conv(128), {"max_pool": 2}, *_conv(256)),
    *(*_up(128), *_up(64), *_up(32)),
    {"conv": {"out_channels": 8, "kernel_size": 1}},
]
_LSTM = [
    {"embedding": {"num_embeddings": 20000, "embedding_dim": 256}},
    {"lstm": {"hidden_size": 512, "num_layers": 2, "bidirectional": True}},
    {"sequence_pooling": "mean"},
    {"linear": 10},
]
_MLP = ["flatten", {"linear": 2048}, "relu", {"linear": 2048}, "relu", {"linear": 10}]

_MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "resnet50": ("cnn", {"model": "torchvision/resnet50"}),
    "vgg16_bn": ("cnn", {"model": "torchvision/vgg16_bn"}),
    "densenet121": ("cnn", {"model": "torchvision/densenet121"}),
    "mobilenet_v3_large": ("depthwise-cnn", {"model": "torchvision/mobilenet_v3_large"}),
    "efficientnet_b0": ("depthwise-cnn", {"model": "torchvision/efficientnet_b0"}),
    "resnext50_32x4d": ("grouped-cnn", {"model": "torchvision/resnext50_32x4d"}),
    "regnet_y_1_6gf": ("grouped-cnn", {"model": "torchvision/regnet_y_1_6gf"}),
    "convnext_tiny": ("convnext", {"model": "torchvision/convnext_tiny"}),
    "vit_b_16": ("vision-transformer", {"model": "torchvision/vit_b_16"}),
    "deit_small": ("vision-transformer", {"model": "timm/deit_small_patch16_224"}),
    "swin_t": ("vision-transformer", {"model": "torchvision/swin_t"}),
    "bert": ("encoder", {"model": "transformers/bert", "inputs": "512:int64"}),
    "gpt2": ("decoder", {"model": "transformers/gpt2", "inputs": "512:int64"}),
    "llama": (
        "decoder",
        {"model": {"name": "transformers/llama", "config": _LLAMA}, "inputs": "1024:int64"},
    ),
    "t5": ("encoder-decoder", {"model": "transformers/t5", "inputs": "512:int64"}),
    "lstm": ("recurrent", {"model": {"layers": _LSTM}, "inputs": "128:int64"}),
    "unet": ("segmentation", {"model": {"layers": _UNET}, "inputs": "3x256x256"}),
    "deeplabv3_resnet50": (
        "segmentation",
        {"model": "torchvision/deeplabv3_resnet50", "inputs": "3x512x512"},
    ),
    "mlp": ("mlp", {"model": {"layers": _MLP}, "inputs": "3x32x32"}),
}
"""Model by short name: its family, and the job file of a job on it."""

FAMILIES = tuple(dict.fromkeys(family for family, _ in _MODELS.values()))

_OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": Optimizer(type=OptimizerType.SGD),
    "momentum": Optimizer(type=OptimizerType.SGD, momentum=0.9),
    "adam": Optimizer(type=OptimizerType.ADAM),
    "adamw": Optimizer(type=OptimizerType.ADAMW),
    "adafactor": Optimizer(type=OptimizerType.ADAFACTOR),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One job of the matrix."""

    name: str
    """Unique; stays the same from release to release."""
    family: str
    job: TrainingJob
    """Normalised; its batch size is `NEAR` where the GPU decides it."""

    @property
    def near_capacity(self) -> bool:
        """Whether the batch size is to be asked of the estimate."""
        return self.job.micro_batch_size == NEAR


@dataclass(frozen=True, kw_only=True, slots=True)
class _Options:
    precision: Precision = Precision.FP32
    optimizer: str = "adamw"
    implementation: OptimizerImplementation = OptimizerImplementation.UNSPECIFIED
    layout: MemoryFormat = MemoryFormat.CONTIGUOUS
    loop: TrainingLoop = field(default_factory=TrainingLoop)
    allocator: AllocatorSettings = field(default_factory=AllocatorSettings)
    checkpointing: bool = False
    data_parallel: DataParallel = field(default_factory=DataParallel)
    suffix: str = ""


def matrix() -> tuple[Entry, ...]:
    """Every job, in the order in which they are measured; each name once."""
    entries: dict[str, Entry] = {}
    for entry in _all():
        entries.setdefault(entry.name, entry)
    return tuple(entries.values())


def _all() -> Iterator[Entry]:
    yield from _each_model()
    yield from _near_capacity()
    yield from _batch_sizes()
    yield from _precisions()
    yield from _optimizers()
    yield from _loops_and_allocators()


def _entry(model: str, batch_size: int, **options: Any) -> Entry:
    wanted = _Options(**options)
    family, text = _MODELS[model]
    optimizer = replace(_OPTIMIZERS[wanted.optimizer], implementation=wanted.implementation)
    job = replace(
        _job(text),
        precision=wanted.precision,
        optimizer=optimizer,
        memory_format=wanted.layout,
        loop=wanted.loop,
        allocator=wanted.allocator,
        activation_checkpointing=wanted.checkpointing,
        data_parallel=wanted.data_parallel,
        micro_batch_size=batch_size,
    )
    parts = [model, wanted.precision.value, wanted.optimizer]
    if wanted.implementation is not OptimizerImplementation.UNSPECIFIED:
        parts.append(wanted.implementation.value)
    if wanted.layout is MemoryFormat.CHANNELS_LAST:
        parts.append("nhwc")
    if wanted.checkpointing:
        parts.append("checkpointed")
    if wanted.suffix:
        parts.append(wanted.suffix)
    parts.append("near" if batch_size == NEAR else f"b{batch_size}")
    return Entry(name="-".join(parts), family=family, job=normalize(job))


def _job(data: Mapping[str, Any]) -> TrainingJob:
    """The job that a job file with this data describes."""
    return jobfile.parse(json.dumps(data)).job


_LARGE = ("deeplabv3_resnet50", "unet", "llama", "gpt2")
_CONVOLUTIONAL = ("resnet50", "mobilenet_v3_large", "resnext50_32x4d", "convnext_tiny")


def _each_model() -> Iterator[Entry]:
    for precision in (Precision.FP32, Precision.AMP_FP16):
        for model in _MODELS:
            batch_size = 8 if model in _LARGE else 32
            yield _entry(model, batch_size, precision=precision)


def _near_capacity() -> Iterator[Entry]:
    for model in ("resnet50", "bert", "vit_b_16", "efficientnet_b0", "llama", "t5", "unet"):
        yield _entry(model, NEAR, precision=Precision.AMP_BF16)
    for model in ("resnet50", "convnext_tiny", "gpt2", "lstm"):
        yield _entry(model, NEAR)
    yield _entry("resnet50", NEAR, precision=Precision.AMP_FP16, layout=MemoryFormat.CHANNELS_LAST)


def _batch_sizes() -> Iterator[Entry]:
    """Small batches: where cuDNN's workspaces weigh most."""
    for model in _CONVOLUTIONAL:
        for batch_size in (1, 8, 128):
            yield _entry(model, batch_size, optimizer="sgd")
    for model in ("resnet50", "resnext50_32x4d", "efficientnet_b0", "convnext_tiny", "unet"):
        for batch_size in (8, 128):
            layout = MemoryFormat.CHANNELS_LAST
            precision = Precision.AMP_FP16
            yield _entry(model, batch_size, optimizer="sgd", precision=precision, layout=layout)
    for model in ("bert", "vit_b_16", "gpt2", "t5", "lstm", "swin_t"):
        for batch_size in (1, 8):
            yield _entry(model, batch_size)
    for model in ("vgg16_bn", "densenet121", "deeplabv3_resnet50"):
        yield _entry(model, 4, optimizer="sgd")


def _precisions() -> Iterator[Entry]:
    for model in ("resnet50", "vit_b_16", "bert", "llama", "lstm", "swin_t", "convnext_tiny"):
        for precision in (Precision.BF16, Precision.TF32, Precision.AMP_BF16):
            yield _entry(model, 8, precision=precision)
    for model in ("resnet50", "mobilenet_v3_large"):
        yield _entry(model, 32, layout=MemoryFormat.CHANNELS_LAST)
        yield _entry(model, 32, layout=MemoryFormat.CHANNELS_LAST, precision=Precision.BF16)


def _optimizers() -> Iterator[Entry]:
    how = OptimizerImplementation
    for model in ("bert", "resnet50"):
        for optimizer in ("sgd", "momentum", "adam", "adamw"):
            for implementation in (how.SINGLE, how.FUSED):
                yield _entry(model, 8, optimizer=optimizer, implementation=implementation)
        yield _entry(model, 8, optimizer="adam")
        yield _entry(model, 8, optimizer="adafactor")
        yield _entry(model, 8, optimizer="adafactor", implementation=how.FOREACH)


def _loops_and_allocators() -> Iterator[Entry]:
    twice = TrainingLoop(accumulation_steps=2)
    norm = TrainingLoop(gradient_clipping=GradientClipping.NORM)
    value = TrainingLoop(gradient_clipping=GradientClipping.VALUE)
    growing = AllocatorSettings(expandable_segments=True)
    for model in ("bert", "resnet50", "gpt2"):
        yield _entry(model, 8, loop=twice, suffix="twice")
        yield _entry(model, 8, loop=norm, suffix="norm")
        yield _entry(model, 8, loop=norm, precision=Precision.AMP_FP16, suffix="norm")
        yield _entry(model, 8, allocator=growing, suffix="expandable")
        yield _entry(model, NEAR, allocator=growing, suffix="expandable")
    for model in ("llama", "bert", "t5", "deit_small"):
        yield _entry(model, 8, checkpointing=True, precision=Precision.AMP_BF16)
    yield _entry("llama", NEAR, checkpointing=True, precision=Precision.BF16)
    ddp = DataParallel(strategy=DataParallelStrategy.DDP)
    views = replace(ddp, gradient_as_bucket_view=True)
    for model in ("resnet50", "bert", "llama"):
        yield _entry(model, 8, data_parallel=ddp, suffix="ddp")
    yield _entry("bert", 8, data_parallel=views, suffix="ddp-views")
    yield _entry("bert", 8, data_parallel=ddp, loop=twice, suffix="ddp-twice")
    yield _entry("bert", 8, loop=value, suffix="value")
    yield _entry("resnet50", 8, loop=replace(twice, keep_outputs=False), suffix="twice-let-go")


if __name__ == "__main__":
    found = matrix()
    for entry in found:
        print(f"{entry.family:18} {entry.name}")
    print(f"{len(found)} jobs, {sum(e.near_capacity for e in found)} of them near capacity")
