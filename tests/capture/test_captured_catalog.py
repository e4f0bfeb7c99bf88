"""A captured catalog model takes what the server's own takes, to the byte."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from tracing import peaks, traced

import memplan
from memplan.types import CatalogModel, InputTensor, Loss, Model, Precision, TrainingJob
from memplan.wire import to_proto
from memplan_server import models
from memplan_server.jobs import normalize

TWO = {"num_hidden_layers": 2}
QUICK: dict[str, dict[str, Any]] = {
    "torchvision/alexnet": {},
    "torchvision/resnet18": {},
    "torchvision/squeezenet1_1": {},
    "torchvision/googlenet": {},
    "timm/deit_tiny_patch16_224": {},
    "timm/mixer_s32_224": {},
    "transformers/bert": TWO,
    "transformers/gpt2": {"n_layer": 2},
    "transformers/llama": TWO,
    "transformers/t5": {"num_layers": 2, "num_decoder_layers": 2},
}
LONG: dict[str, dict[str, Any]] = {
    name: {}
    for name in (
        "torchvision/vgg11_bn torchvision/resnext50_32x4d torchvision/mobilenet_v3_small "
        "torchvision/shufflenet_v2_x0_5 torchvision/efficientnet_b0 torchvision/regnet_y_400mf "
        "torchvision/convnext_tiny torchvision/vit_b_16 torchvision/swin_t torchvision/densenet121 "
        "torchvision/inception_v3 torchvision/maxvit_t torchvision/r3d_18 torchvision/fcn_resnet50 "
        "timm/beit_base_patch16_224 timm/cait_xxs24_224 timm/crossvit_tiny_240 timm/volo_d1_224 "
        "timm/edgenext_small timm/efficientformer_l1 timm/focalnet_tiny_srf timm/ghostnet_100 "
        "timm/hrnet_w18_small timm/levit_128s timm/nfnet_f0 timm/pvt_v2_b0 timm/resnest14d "
        "timm/xcit_nano_12_p16_224 transformers/albert transformers/convnext"
    ).split()
} | {
    "transformers/roberta": TWO,
    "transformers/electra": TWO,
    "transformers/distilbert": {"n_layers": 2},
    "transformers/vit": TWO,
    "transformers/opt": TWO,
    "transformers/qwen2": TWO,
    "transformers/bart": {"encoder_layers": 2, "decoder_layers": 2},
}
CASES = [*QUICK.items(), *(pytest.param(*case, marks=pytest.mark.slow) for case in LONG.items())]


def captured(job: TrainingJob) -> TrainingJob:
    """The same job with its model captured from the library's own module."""
    built = models.build(job)
    specs = (*built.inputs, *built.labels)
    graph = memplan.capture(
        built.module,
        tuple(InputTensor(shape=s.shape, dtype=s.dtype) for s in built.inputs if not s.name),
        kwargs={s.name: InputTensor(shape=s.shape, dtype=s.dtype) for s in specs if s.name},
        loss=None if built.returns_loss else Loss.CROSS_ENTROPY,
    )
    loss = Loss.UNSPECIFIED if built.returns_loss else Loss.CROSS_ENTROPY
    return TrainingJob(model=Model(graph=graph), loss=loss, micro_batch_size=16)


@pytest.mark.parametrize(("name", "config"), CASES)
def test_allocated_bytes_are_equal(name: str, config: dict[str, Any]) -> None:
    model = Model(catalog=CatalogModel(name=name, config=config))
    job = normalize(TrainingJob(model=model, micro_batch_size=16))
    own, other = traced(job), traced(captured(job))
    assert other.parameter_count == own.parameter_count
    assert other.affine == own.affine
    for batch_size in (16, 100) if own.affine else (16,):
        assert peaks(other, batch_size) == peaks(own, batch_size)


@pytest.mark.parametrize(
    "name", ["timm/deit_tiny_patch16_224", "transformers/gpt2", "transformers/llama"]
)
def test_they_are_equal_in_mixed_precision(name: str) -> None:
    """Language models compute the loss of `logits.float()`, and return the logits they had."""
    model = Model(catalog=CatalogModel(name=name, config=QUICK[name]))
    job = TrainingJob(model=model, micro_batch_size=16, precision=Precision.AMP_BF16)
    own = traced(normalize(job))
    other = traced(replace(captured(job), precision=Precision.AMP_BF16))
    for batch_size in (16, 100):
        assert peaks(other, batch_size) == peaks(own, batch_size)


CHECKPOINTED = ["timm/deit_tiny_patch16_224", "transformers/bert", "transformers/llama"]
LONG_CHECKPOINTED = ["timm/resnet18", "timm/convnext_atto", "transformers/t5", "transformers/gpt2"]


@pytest.mark.parametrize(
    "name",
    [*CHECKPOINTED, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG_CHECKPOINTED)],
)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.AMP_BF16])
def test_activations_computed_anew_are_seen(name: str, precision: Precision) -> None:
    model = Model(catalog=CatalogModel(name=name, config=QUICK.get(name, {})))
    job = TrainingJob(
        model=model, micro_batch_size=16, precision=precision, activation_checkpointing=True
    )
    job = normalize(job)
    plain = traced(replace(job, activation_checkpointing=False))
    own, other = traced(job), traced(replace(captured(job), precision=precision))
    assert other.affine
    for batch_size in (16, 100):
        # The library's closures keep arguments that no layer uses, such as positions.
        assert peaks(other, batch_size) == pytest.approx(peaks(own, batch_size), rel=0.002)
        assert peaks(other, batch_size) < peaks(plain, batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision/resnet50", "transformers/bert"])
def test_capture_is_quick_and_small(name: str) -> None:
    job = TrainingJob(model=Model(catalog=CatalogModel(name=name)), micro_batch_size=16)
    memplan.capture(torch.nn.Linear(2, 2), torch.empty(4, 2))  # the first use imports a lot
    models.build(job)
    runs = []
    for _ in range(3):  # the quickest: other processes slow this one down, caches shared
        before = time.process_time()
        graph = captured(job).model.graph
        runs.append(time.process_time() - before)
    seconds = min(runs)
    size = len(to_proto(graph).SerializeToString())
    print(f"{name}: {seconds:.2f} s of CPU with building, {size:,} bytes")
    assert seconds < 3
    assert size < 1_000_000
