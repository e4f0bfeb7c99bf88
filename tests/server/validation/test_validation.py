"""Every rule of the contract, and that all violations are found at once."""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import instances

from memplan import types
from memplan.types import (
    Activation,
    ActivationType,
    AllocatorSettings,
    CatalogModel,
    Convolution,
    DataParallel,
    DataParallelStrategy,
    Dropout,
    Embedding,
    EstimateMemoryRequest,
    Flatten,
    GpuTarget,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    Loss,
    Model,
    MultiHeadAttention,
    Normalization,
    NormalizationType,
    Optimizer,
    OptimizerImplementation,
    OptimizerType,
    PlanAccumulationRequest,
    PlanJobRequest,
    Pooling,
    PoolingType,
    RecommendBatchSizeRequest,
    Recurrent,
    Reshape,
    Residual,
    TrainingJob,
    TrainingLoop,
    TransformerEncoderLayer,
    Upsample,
)
from memplan.v1 import planner_pb2
from memplan.wire import to_proto
from memplan_server.errors import InvalidJob
from memplan_server.jobs import digest, normalize, timeline_part
from memplan_server.validation import check, read, violations_of

IMAGE = InputTensor(shape=(3, 32, 32))


def stack(*layers: Layer, **job: Any) -> TrainingJob:
    values = {"inputs": (IMAGE,), "micro_batch_size": 8, **job}
    return TrainingJob(model=Model(layer_stack=LayerStack(layers=layers)), **values)


def catalog(name: str = "torchvision/resnet50", **options: Any) -> Model:
    return Model(catalog=CatalogModel(name=name, **options))


def resnet(**job: Any) -> TrainingJob:
    return TrainingJob(**{"model": catalog(), "micro_batch_size": 8, **job})


def paths(request: object) -> list[str]:
    return [violation.field for violation in violations_of(request)]


def job_paths(job: TrainingJob) -> list[str]:
    return [path.removeprefix("job.") for path in paths(EstimateMemoryRequest(job=job))]


def nested(depth: int) -> Layer:
    if depth == 1:
        return Layer(linear=Linear(out_features=1))
    return Layer(residual=Residual(body=(nested(depth - 1),)))


FINE = [
    resnet(),
    resnet(model=catalog("timm/vit_base_patch16_224.augreg-in21k", config={"num_classes": 10})),
    resnet(model=catalog("transformers/bert", task="masked-lm", config={"a": {"b": [1, None]}})),
    resnet(inputs=(InputTensor(), InputTensor(name="mask", shape=(2**31 - 1,)))),
    resnet(optimizer=Optimizer(momentum=0.9, nesterov=True)),
    resnet(optimizer=Optimizer(type=OptimizerType.CUSTOM, state_count=16)),
    resnet(allocator=AllocatorSettings(roundup_power2_divisions=16, max_split_size_mb=20)),
    resnet(micro_batch_size=2**24),
    stack(Layer(flatten=Flatten()), Layer(linear=Linear(out_features=10), repeat=1999)),
    stack(nested(16)),
    stack(Layer(reshape=Reshape(shape=(-1, 3))), Layer(dropout=Dropout(p=0.0))),
    stack(Layer(convolution=Convolution(out_channels=4, kernel_size=(3,), groups=-1))),
    stack(Layer(pooling=Pooling(type=PoolingType.ADAPTIVE_MAX))),
    stack(Layer(normalization=Normalization(type=NormalizationType.GROUP, num_groups=2))),
]

NO_RANKS, SHARDED = DataParallelStrategy.NONE, DataParallelStrategy.FSDP
ADAM, RMSPROP, FUSED = OptimizerType.ADAM, OptimizerType.RMSPROP, OptimizerImplementation.FUSED
LAYERS = "model.layer_stack.layers"

WRONG = [
    (TrainingJob(micro_batch_size=1), "model"),
    (
        resnet(model=Model(catalog=CatalogModel(name="a/b"), layer_stack=LayerStack())),
        "model",
    ),
    (resnet(model=catalog("")), "model.catalog.name"),
    (resnet(model=catalog("resnet50")), "model.catalog.name"),
    (resnet(model=catalog("../../etc/passwd")), "model.catalog.name"),
    (resnet(model=catalog("timm/a\nb")), "model.catalog.name"),
    (resnet(model=catalog("timm/" + "a" * 200)), "model.catalog.name"),
    (resnet(model=catalog("transformers/bert", task="masked_lm")), "model.catalog.task"),
    (resnet(model=catalog(task="masked-lm")), "model.catalog.task"),
    (resnet(model=catalog(config={"a b": 1})), "model.catalog.config"),
    (resnet(model=catalog(config={"a": math.nan})), "model.catalog.config.a"),
    (resnet(model=catalog(config={"a": math.inf})), "model.catalog.config.a"),
    (resnet(model=catalog(config={"a": [1e300]})), "model.catalog.config.a[0]"),
    (resnet(model=catalog(config={"a": "x" * 1001})), "model.catalog.config.a"),
    (resnet(model=catalog(config={"a": list(range(1000))})), "model.catalog.config"),
    (
        resnet(model=catalog(config={"a": [[[[[[[[1]]]]]]]]})),
        "model.catalog.config.a" + "[0]" * 7,
    ),
    (resnet(inputs=(IMAGE,) * 17), "inputs"),
    (resnet(inputs=(InputTensor(shape=(3, 0)),)), "inputs[0].shape[1]"),
    (resnet(inputs=(IMAGE, InputTensor(shape=(-1,)))), "inputs[1].shape[0]"),
    (resnet(inputs=(InputTensor(shape=(2**31,)),)), "inputs[0].shape[0]"),
    (resnet(inputs=(InputTensor(shape=(1,) * 9),)), "inputs[0].shape"),
    (resnet(inputs=(InputTensor(shape=(2**21, 2**20)),)), "inputs[0].shape"),
    (resnet(inputs=(InputTensor(name="a.b"),)), "inputs[0].name"),
    (resnet(inputs=(InputTensor(name="a"), InputTensor(name="a"))), "inputs[1].name"),
    (resnet(optimizer=Optimizer(momentum=1.0)), "optimizer.momentum"),
    (resnet(optimizer=Optimizer(momentum=-0.1)), "optimizer.momentum"),
    (resnet(optimizer=Optimizer(momentum=math.nan)), "optimizer.momentum"),
    (resnet(optimizer=Optimizer(type=ADAM, momentum=0.9)), "optimizer.momentum"),
    (resnet(optimizer=Optimizer(amsgrad=True)), "optimizer.amsgrad"),
    (resnet(optimizer=Optimizer(type=ADAM, centered=True)), "optimizer.centered"),
    (resnet(optimizer=Optimizer(nesterov=True)), "optimizer.nesterov"),
    (resnet(optimizer=Optimizer(weight_decay=-1.0)), "optimizer.weight_decay"),
    (resnet(optimizer=Optimizer(weight_decay=math.inf)), "optimizer.weight_decay"),
    (resnet(optimizer=Optimizer(weight_decay=math.nan)), "optimizer.weight_decay"),
    (resnet(optimizer=Optimizer(state_count=1)), "optimizer.state_count"),
    (
        resnet(optimizer=Optimizer(type=OptimizerType.CUSTOM, state_count=17)),
        "optimizer.state_count",
    ),
    (resnet(optimizer=Optimizer(type=RMSPROP, implementation=FUSED)), "optimizer.implementation"),
    (resnet(loop=TrainingLoop(accumulation_steps=-1)), "loop.accumulation_steps"),
    (resnet(loop=TrainingLoop(accumulation_steps=2**20 + 1)), "loop.accumulation_steps"),
    (
        resnet(allocator=AllocatorSettings(roundup_power2_divisions=3)),
        "allocator.roundup_power2_divisions",
    ),
    (resnet(allocator=AllocatorSettings(max_split_size_mb=19)), "allocator.max_split_size_mb"),
    (
        resnet(allocator=AllocatorSettings(garbage_collection_threshold=1.0)),
        "allocator.garbage_collection_threshold",
    ),
    (resnet(data_parallel=DataParallel(bucket_cap_mb=-1)), "data_parallel.bucket_cap_mb"),
    (
        resnet(data_parallel=DataParallel(strategy=NO_RANKS, gradient_as_bucket_view=True)),
        "data_parallel.gradient_as_bucket_view",
    ),
    (
        resnet(data_parallel=DataParallel(strategy=SHARDED, bucket_cap_mb=5)),
        "data_parallel.bucket_cap_mb",
    ),
    (
        resnet(data_parallel=DataParallel(strategy=SHARDED, shard_count=1)),
        "data_parallel.shard_count",
    ),
    (resnet(data_parallel=DataParallel(shard_count=2)), "data_parallel.shard_count"),
    (
        resnet(data_parallel=DataParallel(reshard_after_forward=False)),
        "data_parallel.reshard_after_forward",
    ),
    (resnet(micro_batch_size=0), "micro_batch_size"),
    (resnet(micro_batch_size=-(2**62)), "micro_batch_size"),
    (resnet(micro_batch_size=2**24 + 1), "micro_batch_size"),
    (stack(), LAYERS),
    (stack(Layer(flatten=Flatten()), inputs=()), "inputs"),
    (stack(Layer(flatten=Flatten()), inputs=(IMAGE, IMAGE)), "inputs"),
    (stack(Layer(flatten=Flatten()), loss=Loss.MODEL), "loss"),
    (stack(Layer()), f"{LAYERS}[0]"),
    (stack(Layer(flatten=Flatten(), dropout=Dropout())), f"{LAYERS}[0]"),
    (stack(Layer(flatten=Flatten(), name="\0")), f"{LAYERS}[0].name"),
    (stack(Layer(flatten=Flatten(), repeat=-1)), f"{LAYERS}[0].repeat"),
    (stack(Layer(flatten=Flatten(), repeat=1999), nested(2)), LAYERS),
    (stack(nested(17)), f"{LAYERS}[0]" + ".residual.body[0]" * 15 + ".residual.body"),
    (stack(Layer(residual=Residual())), f"{LAYERS}[0].residual.body"),
    (
        stack(Layer(residual=Residual(body=(nested(1),), shortcut=(Layer(),)))),
        f"{LAYERS}[0].residual.shortcut[0]",
    ),
    (stack(Layer(linear=Linear())), f"{LAYERS}[0].linear.out_features"),
    (
        stack(Layer(linear=Linear(out_features=1, in_features=-1))),
        f"{LAYERS}[0].linear.in_features",
    ),
    (stack(Layer(embedding=Embedding(embedding_dim=1))), f"{LAYERS}[0].embedding.num_embeddings"),
    (
        stack(Layer(multi_head_attention=MultiHeadAttention(num_heads=1, dropout=1.0))),
        f"{LAYERS}[0].multi_head_attention.dropout",
    ),
    (
        stack(
            Layer(
                transformer_encoder_layer=TransformerEncoderLayer(
                    num_heads=1, activation=ActivationType.TANH
                )
            )
        ),
        f"{LAYERS}[0].transformer_encoder_layer.activation",
    ),
    (
        stack(Layer(recurrent=Recurrent(hidden_size=1, num_layers=-1))),
        f"{LAYERS}[0].recurrent.num_layers",
    ),
    (stack(Layer(upsample=Upsample(scale_factor=65))), f"{LAYERS}[0].upsample.scale_factor"),
    (stack(Layer(reshape=Reshape())), f"{LAYERS}[0].reshape.shape"),
    (stack(Layer(reshape=Reshape(shape=(-1, -1)))), f"{LAYERS}[0].reshape.shape"),
    (stack(Layer(reshape=Reshape(shape=(-2,)))), f"{LAYERS}[0].reshape.shape[0]"),
    (stack(Layer(dropout=Dropout(p=math.nan))), f"{LAYERS}[0].dropout.p"),
    (stack(Layer(pooling=Pooling())), f"{LAYERS}[0].pooling.kernel_size"),
    (
        stack(Layer(pooling=Pooling(kernel_size=(2,), output_size=(1,)))),
        f"{LAYERS}[0].pooling.output_size",
    ),
    (
        stack(Layer(pooling=Pooling(type=PoolingType.ADAPTIVE_MAX, kernel_size=(2,)))),
        f"{LAYERS}[0].pooling.kernel_size",
    ),
    (
        stack(Layer(pooling=Pooling(kernel_size=(2, 4), padding=(2,)))),
        f"{LAYERS}[0].pooling.padding",
    ),
    (
        stack(Layer(normalization=Normalization(type=NormalizationType.GROUP))),
        f"{LAYERS}[0].normalization.num_groups",
    ),
    (
        stack(Layer(normalization=Normalization(num_groups=2))),
        f"{LAYERS}[0].normalization.num_groups",
    ),
    (
        stack(Layer(convolution=Convolution(out_channels=1))),
        f"{LAYERS}[0].convolution.kernel_size",
    ),
    (
        stack(Layer(convolution=Convolution(out_channels=1, kernel_size=(1,) * 4))),
        f"{LAYERS}[0].convolution.kernel_size",
    ),
    (
        stack(Layer(convolution=Convolution(out_channels=3, kernel_size=(1,), groups=2))),
        f"{LAYERS}[0].convolution.groups",
    ),
    (
        stack(Layer(convolution=Convolution(out_channels=2, kernel_size=(1,), groups=-2))),
        f"{LAYERS}[0].convolution.groups",
    ),
    (
        stack(Layer(convolution=Convolution(out_channels=1, kernel_size=(2,), same_padding=True))),
        f"{LAYERS}[0].convolution.kernel_size",
    ),
    (
        stack(
            Layer(convolution=Convolution(out_channels=1, kernel_size=(1,), output_padding=(1,)))
        ),
        f"{LAYERS}[0].convolution.output_padding",
    ),
    (
        stack(
            Layer(
                transposed_convolution=Convolution(
                    out_channels=1, kernel_size=(1,), same_padding=True
                )
            )
        ),
        f"{LAYERS}[0].transposed_convolution.same_padding",
    ),
]

A100 = GpuTarget(gpu_type="nvidia-a100-80gb")

WRONG_REQUESTS = [
    (EstimateMemoryRequest(job=resnet(), gpu_type="x" * 201), "gpu_type"),
    (PlanJobRequest(job=resnet(), gpus=(A100,) * 257), "gpus"),
    (PlanJobRequest(job=resnet(), gpus=(A100, GpuTarget())), "gpus[1].gpu_type"),
    (
        PlanJobRequest(job=resnet(), gpus=(GpuTarget(gpu_type="a", free_bytes=-1),)),
        "gpus[0].free_bytes",
    ),
    (PlanJobRequest(job=resnet(), global_batch_size=-8), "global_batch_size"),
    (PlanJobRequest(job=resnet(), global_batch_size=2**40 + 1), "global_batch_size"),
    (
        PlanJobRequest(job=resnet(), global_batch_size=10, data_parallel_size=3),
        "global_batch_size",
    ),
    (PlanJobRequest(job=resnet(), data_parallel_size=2**20 + 1), "data_parallel_size"),
    (PlanJobRequest(job=resnet(), headroom_fraction=0.91), "headroom_fraction"),
    (PlanJobRequest(job=resnet(), headroom_fraction=math.nan), "headroom_fraction"),
    (EstimateMemoryRequest(job=resnet(), confidence=0.991), "confidence"),
    (PlanJobRequest(job=resnet(), confidence=0.49), "confidence"),
    (PlanJobRequest(job=resnet(), confidence=math.nan), "confidence"),
    (PlanJobRequest(job=resnet(), measurement_budget=timedelta()), "measurement_budget"),
    (RecommendBatchSizeRequest(job=resnet(), confidence=95.0), "confidence"),
    (
        PlanAccumulationRequest(job=resnet(), gpu=A100, global_batch_size=1, confidence=-0.9),
        "confidence",
    ),
    (PlanAccumulationRequest(job=resnet(), gpu=A100), "global_batch_size"),
    (PlanAccumulationRequest(job=resnet(), global_batch_size=1), "gpu.gpu_type"),
    (RecommendBatchSizeRequest(job=resnet(), multiple_of=4097), "multiple_of"),
    (RecommendBatchSizeRequest(job=resnet(), max_batch_size=2**24 + 1), "max_batch_size"),
    (RecommendBatchSizeRequest(job=resnet(micro_batch_size=-1)), "job.micro_batch_size"),
    (types.ListGpuTypesRequest(page_size=-1), "page_size"),
    (types.ListModelsRequest(page_size=1001), "page_size"),
    (types.ListModelsRequest(filter="x" * 201), "filter"),
]


@pytest.mark.parametrize("job", FINE)
def test_good_jobs_pass(job: TrainingJob) -> None:
    assert job_paths(job) == []
    assert normalize(normalize(job)) == normalize(job)


@pytest.mark.parametrize(("job", "path"), WRONG, ids=[path for _, path in WRONG])
def test_one_wrong_place_is_named(job: TrainingJob, path: str) -> None:
    assert set(job_paths(job)) == {path} or (path == "model" and path in job_paths(job))


@pytest.mark.parametrize(("request_", "path"), WRONG_REQUESTS)
def test_one_wrong_place_of_a_request_is_named(request_: object, path: str) -> None:
    assert paths(request_) == [path]


def test_a_measurement_budget_passes() -> None:
    assert paths(PlanJobRequest(job=resnet(), measurement_budget=timedelta(seconds=9))) == []


@pytest.mark.parametrize("confidence", [0.0, 0.5, 0.95, 0.99])
def test_confidences_that_there_are_measurements_for_pass(confidence: float) -> None:
    assert paths(PlanJobRequest(job=resnet(), confidence=confidence)) == []


def test_a_confidence_that_is_too_high_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidJob) as refused:
        check(EstimateMemoryRequest(job=resnet(), confidence=0.999))
    (violation,) = refused.value.violations
    assert violation.description == (
        "must be a number from 0.5 to 0.99, not 0.999: there are not enough measurements for more."
    )


def test_the_batch_size_may_be_left_to_those_who_find_it() -> None:
    job = resnet(micro_batch_size=0)
    assert paths(RecommendBatchSizeRequest(job=job)) == []
    assert paths(PlanAccumulationRequest(job=job, gpu=A100, global_batch_size=8)) == []


def test_all_violations_are_found_at_once() -> None:
    job = stack(
        Layer(linear=Linear()),
        Layer(activation=Activation(), repeat=-3),
        inputs=(),
        optimizer=Optimizer(type=ADAM, momentum=math.nan, nesterov=True),
        micro_batch_size=-1,
    )
    request = PlanJobRequest(job=job, gpus=(GpuTarget(),), headroom_fraction=2.0)
    with pytest.raises(InvalidJob) as refused:
        check(request)
    assert {violation.field for violation in refused.value.violations} == {
        "job.model.layer_stack.layers[0].linear.out_features",
        "job.model.layer_stack.layers[1].repeat",
        "job.inputs",
        "job.optimizer.momentum",
        "job.optimizer.nesterov",
        "job.micro_batch_size",
        "gpus[0].gpu_type",
        "headroom_fraction",
    }
    for violation in refused.value.violations:
        assert violation.description.endswith("."), violation


REQUESTS = [
    types.EstimateMemoryRequest,
    types.RecommendBatchSizeRequest,
    types.PlanAccumulationRequest,
    types.PlanJobRequest,
    types.ListGpuTypesRequest,
    types.ListModelsRequest,
]


@given(st.sampled_from(REQUESTS).flatmap(instances))
@settings(max_examples=100, deadline=None)
def test_any_request_is_judged(request_: Any) -> None:
    """Any request at all: no rule fails, and a good one can be normalised and digested."""
    message = to_proto(request_)
    back, violations = read(type(message), message.SerializeToString())
    assert not violations
    found = list(violations_of(back))
    if not found and hasattr(back, "job"):
        digest(timeline_part(normalize(back.job)))


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidJob):
        request, _ = read(planner_pb2.PlanJobRequest, data)
        list(violations_of(request))


def test_unknown_enum_numbers_are_named_with_everything_else() -> None:
    message = planner_pb2.PlanJobRequest()
    message.job.precision = 99
    message.job.model.layer_stack.layers.add().pooling.type = -5
    request, violations = read(planner_pb2.PlanJobRequest, message.SerializeToString())
    assert [violation.field for violation in violations] == [
        "job.model.layer_stack.layers[0].pooling.type",
        "job.precision",
    ]
    assert "job.micro_batch_size" in paths(request)


@pytest.mark.parametrize("field", ["gpus", "inputs", "layers", "shape"])
def test_too_many_entries_are_refused_before_they_are_read(field: str) -> None:
    message = planner_pb2.PlanJobRequest()
    layers = message.job.model.layer_stack.layers
    many = {
        "gpus": message.gpus,
        "inputs": message.job.inputs,
        "layers": layers,
        "shape": message.job.inputs.add().shape,
    }[field]
    if field == "shape":
        many.extend([1] * 2001)
    else:
        for _ in range(2001):
            many.add()
    with pytest.raises(InvalidJob) as refused:
        read(planner_pb2.PlanJobRequest, message.SerializeToString())
    (violation,) = refused.value.violations
    assert violation.field.split(".")[-1].startswith(field)
    assert "2,00" in violation.description


def test_too_many_values_in_all_are_refused() -> None:
    message = planner_pb2.PlanJobRequest()
    for _ in range(410):
        body = message.job.model.layer_stack.layers.add().residual.body
        for _ in range(1500):
            body.add()
    with pytest.raises(InvalidJob, match="more than 600,000 values"):
        read(planner_pb2.PlanJobRequest, message.SerializeToString())
