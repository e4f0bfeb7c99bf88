"""Defaults are written out as the contract states them, and digests tell jobs apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memplan.ranks import in_ranks
from memplan.types import (
    Activation,
    ActivationType,
    Assumptions,
    CatalogModel,
    Convolution,
    DataParallel,
    DataParallelStrategy,
    Dropout,
    GradientClipping,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    Loss,
    MemoryFormat,
    Model,
    Normalization,
    NormalizationType,
    Optimizer,
    OptimizerImplementation,
    OptimizerType,
    Padding,
    Pooling,
    PoolingType,
    Precision,
    Residual,
    Routing,
    TrainingJob,
    TrainingLoop,
    ZeroGrad,
)
from memplan_server.jobs import digest, normalize, timeline_part

JOB = TrainingJob(
    model=Model(catalog=CatalogModel(name="torchvision/resnet50")), micro_batch_size=8
)


def normalized(layer: Layer) -> Layer:
    stack = LayerStack(layers=(layer,))
    job = normalize(replace(JOB, model=Model(layer_stack=stack)))
    assert job.model.layer_stack is not None
    return job.model.layer_stack.layers[0]


def test_the_defaults_are_those_of_a_plain_training_loop() -> None:
    job = normalize(JOB)
    assert job.optimizer == Optimizer(
        type=OptimizerType.SGD,
        implementation=OptimizerImplementation.FOREACH,
        weight_decay=0.0,
    )
    assert job.loop == TrainingLoop(
        zero_grad=ZeroGrad.BEFORE_FORWARD,
        zero_grad_set_to_none=True,
        gradient_clipping=GradientClipping.NONE,
        accumulation_steps=1,
        keep_outputs=True,
    )
    assert (job.precision, job.memory_format) == (Precision.FP32, MemoryFormat.CONTIGUOUS)
    assert job.loss is Loss.UNSPECIFIED  # the model's own where it has one


def test_what_is_given_stays() -> None:
    given = replace(
        JOB,
        optimizer=Optimizer(
            type=OptimizerType.ADAMW,
            implementation=OptimizerImplementation.FUSED,
            weight_decay=0.0,
        ),
        loop=TrainingLoop(
            zero_grad=ZeroGrad.NEVER,
            zero_grad_set_to_none=False,
            gradient_clipping=GradientClipping.NORM,
            accumulation_steps=3,
            keep_outputs=False,
        ),
        precision=Precision.BF16,
        memory_format=MemoryFormat.CHANNELS_LAST,
        assumptions=Assumptions(
            routing=Routing.WORST_CASE,
            padding=Padding.PADDED,
            images_per_sample=3,
            conditions_are_false=True,
        ),
    )
    assert normalize(given) == given


DDP, FSDP = DataParallelStrategy.DDP, DataParallelStrategy.FSDP


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (DataParallel(), DataParallel()),
        (DataParallel(strategy=DataParallelStrategy.NONE), DataParallel()),
        (DataParallel(strategy=DDP), DataParallel(strategy=DDP, bucket_cap_mb=25)),
        (DataParallel(bucket_cap_mb=5), DataParallel(strategy=DDP, bucket_cap_mb=5)),
        (
            DataParallel(strategy=FSDP, shard_count=8),
            DataParallel(strategy=FSDP, shard_count=8, reshard_after_forward=True),
        ),
    ],
)
def test_how_ranks_work_together(given: DataParallel, meant: DataParallel) -> None:
    assert normalize(replace(JOB, data_parallel=given)).data_parallel == meant


@pytest.mark.parametrize(
    ("given", "ranks", "meant"),
    [
        (DataParallelStrategy.UNSPECIFIED, 1, DataParallelStrategy.UNSPECIFIED),
        (DataParallelStrategy.UNSPECIFIED, 2, DDP),
        (DataParallelStrategy.NONE, 2, DataParallelStrategy.NONE),
    ],
)
def test_several_ranks_use_ddp_unless_they_say_otherwise(
    given: DataParallelStrategy, ranks: int, meant: DataParallelStrategy
) -> None:
    job = replace(JOB, data_parallel=DataParallel(strategy=given))
    assert in_ranks(job, ranks).data_parallel.strategy is meant


@pytest.mark.parametrize(("given", "ranks", "meant"), [(0, 8, 8), (4, 8, 4), (4, 1, 4)])
def test_the_model_is_sharded_over_all_ranks_unless_it_says_how_many(
    given: int, ranks: int, meant: int
) -> None:
    job = replace(JOB, data_parallel=DataParallel(strategy=FSDP, shard_count=given))
    assert in_ranks(job, ranks).data_parallel.shard_count == meant


@pytest.mark.parametrize(
    ("kind", "implementation", "weight_decay"),
    [
        (OptimizerType.ADAMW, OptimizerImplementation.FOREACH, 0.01),
        (OptimizerType.ADAFACTOR, OptimizerImplementation.SINGLE, 0.0),
        (OptimizerType.CUSTOM, OptimizerImplementation.SINGLE, 0.0),
    ],
)
def test_optimizers_have_defaults_of_their_own(
    kind: OptimizerType, implementation: OptimizerImplementation, weight_decay: float
) -> None:
    optimizer = normalize(replace(JOB, optimizer=Optimizer(type=kind))).optimizer
    assert optimizer.implementation is implementation
    assert optimizer.weight_decay == weight_decay


def test_layers_get_their_defaults_at_any_depth() -> None:
    body = Layer(linear=Linear(out_features=4, bias=False))
    residual = normalized(Layer(residual=Residual(body=(body,)))).residual
    assert residual is not None
    assert residual.body == (Layer(repeat=1, linear=Linear(out_features=4, bias=False)),)
    convolution = normalized(Layer(convolution=Convolution(out_channels=4, kernel_size=(3,))))
    assert convolution.convolution == Convolution(
        out_channels=4,
        kernel_size=(3,),
        stride=(1,),
        padding=(0,),
        dilation=(1,),
        groups=1,
        bias=True,
        output_padding=(0,),
    )
    assert normalized(Layer(activation=Activation())).activation == Activation(
        type=ActivationType.RELU
    )
    assert normalized(Layer(dropout=Dropout())).dropout == Dropout(p=0.5)
    assert normalized(Layer(dropout=Dropout(p=0.0))).dropout == Dropout(p=0.0)


def test_pooling_and_normalisation_depend_on_their_type() -> None:
    assert normalized(Layer(pooling=Pooling(kernel_size=(2, 3)))).pooling == Pooling(
        type=PoolingType.MAX, kernel_size=(2, 3), stride=(2, 3), padding=(0,)
    )
    adaptive = Pooling(type=PoolingType.ADAPTIVE_AVERAGE)
    assert normalized(Layer(pooling=adaptive)).pooling == replace(adaptive, output_size=(1,))
    for kind, affine in ((NormalizationType.INSTANCE, False), (NormalizationType.LAYER, True)):
        layer = normalized(Layer(normalization=Normalization(type=kind)))
        assert layer.normalization == Normalization(type=kind, affine=affine)


def test_whole_numbers_of_a_configuration_become_integers() -> None:
    config = {"num_classes": 10.0, "rate": 0.5, "sizes": [1.0, {"deep": 2.0}], "on": True}
    job = normalize(replace(JOB, model=Model(catalog=CatalogModel(name="timm/a", config=config))))
    assert job.model.catalog is not None
    whole = job.model.catalog.config
    assert whole == config
    assert [type(v) for v in (whole["num_classes"], whole["sizes"][0], whole["on"])] == [
        int,
        int,
        bool,
    ]


def test_the_digest_sees_what_counts() -> None:
    job = normalize(JOB)
    others = [
        replace(job, precision=Precision.TF32),
        replace(job, inputs=(InputTensor(shape=(3, 32, 32)),)),
        replace(job, optimizer=replace(job.optimizer, momentum=0.5)),
        replace(job, loop=replace(job.loop, accumulation_steps=2)),
        replace(job, model=Model(catalog=CatalogModel(name="torchvision/resnet18"))),
    ]
    digests = {digest(timeline_part(j)) for j in (job, *others)}
    assert len(digests) == 1 + len(others)
    assert digest(timeline_part(job)) == digest(timeline_part(normalize(job)))
    assert digest(job, "torch 2") != digest(job, "torch 3") != digest(job)
