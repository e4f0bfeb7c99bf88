"""From a request to an answer with real models, through a worker that really simulates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from serving import SOON_S, Refusal, Served

from memplan.v1 import estimate_pb2, job_pb2, layers_pb2
from memplan.v1 import planner_pb2 as pb
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub
from memplan_server.app import serve
from memplan_server.settings import Settings

START_S = 120.0
"""The first answer waits for a worker to import torch."""


def squeezenet(batch_size: int = 8) -> Any:
    job = job_pb2.TrainingJob(micro_batch_size=batch_size)
    job.model.catalog.name = "torchvision/squeezenet1_1"
    job.inputs.add(shape=[3, 64, 64])
    job.optimizer.type = job_pb2.OPTIMIZER_TYPE_ADAM
    return job


def test_an_estimate_adds_up(planner: MemoryPlannerStub) -> None:
    request = pb.EstimateMemoryRequest(job=squeezenet(), gpu_type="nvidia-t4")
    got = planner.EstimateMemory(request, timeout=START_S).estimate
    assert adds_up(got)
    assert got.model_state.parameter_bytes == 4 * got.model_state.parameter_count
    assert got.model_state.optimizer_state_bytes >= 2 * got.model_state.parameter_bytes
    assert got.library_versions["torch"]


def test_ranks_have_buckets_of_gradients(planner: MemoryPlannerStub) -> None:
    request = pb.PlanJobRequest(job=squeezenet(64), data_parallel_size=4)
    request.gpus.add(gpu_type="nvidia-t4")
    ranks = planner.PlanJob(request, timeout=START_S).estimate
    request.job.data_parallel.strategy = job_pb2.DATA_PARALLEL_STRATEGY_NONE
    alone = planner.PlanJob(request, timeout=START_S).estimate
    request.job.data_parallel.strategy = job_pb2.DATA_PARALLEL_STRATEGY_DDP
    request.data_parallel_size = 1
    assert planner.PlanJob(request, timeout=START_S).estimate == ranks
    more = ranks.breakdown.gradient_bytes - alone.breakdown.gradient_bytes
    assert more >= alone.model_state.gradient_bytes
    assert ranks.upper_bound_bytes - alone.upper_bound_bytes > 900 << 20
    assert any("DistributedDataParallel" in assumption for assumption in ranks.assumptions)


def test_a_model_is_sharded_over_the_ranks(planner: MemoryPlannerStub) -> None:
    request = pb.PlanJobRequest(job=squeezenet(8), data_parallel_size=4)
    request.gpus.add(gpu_type="nvidia-t4")
    request.job.data_parallel.strategy = job_pb2.DATA_PARALLEL_STRATEGY_FSDP
    got = planner.PlanJob(request, timeout=START_S).estimate
    assert adds_up(got)
    state = got.model_state
    assert state.parameter_bytes == pytest.approx(state.parameter_count, rel=0.01)
    assert state.optimizer_state_bytes == pytest.approx(2 * state.parameter_bytes, rel=0.01)
    with pytest.raises(grpc.RpcError) as raised:
        planner.EstimateMemory(pb.EstimateMemoryRequest(job=request.job), timeout=SOON_S)
    assert Refusal.of(raised.value).fields == {"job.data_parallel.shard_count"}
    request.job.data_parallel.shard_count = 3
    with pytest.raises(grpc.RpcError) as raised:
        planner.PlanJob(request, timeout=SOON_S)
    assert Refusal.of(raised.value).fields == {"job.data_parallel.shard_count"}
    request.job.data_parallel.shard_count = 0
    request.measurement_budget.FromSeconds(10)
    with pytest.raises(grpc.RpcError) as raised:
        planner.PlanJob(request, timeout=SOON_S)
    assert Refusal.of(raised.value).fields == {"job.data_parallel.strategy"}


def adds_up(estimate: Any) -> bool:
    parts = [value for _, value in estimate.breakdown.ListFields()]
    return bool(sum(parts) == estimate.device_used_bytes)


def test_resnet50_planned_on_two_gpus(planner: MemoryPlannerStub) -> None:
    request = pb.PlanJobRequest(job=squeezenet(64), global_batch_size=1024)
    request.job.model.catalog.name = "torchvision/resnet50"
    request.job.inputs[0].shape[:] = [3, 224, 224]
    for gpu_type in ("nvidia-a100-40gb", "nvidia-t4"):
        request.gpus.add(gpu_type=gpu_type)
    plan = planner.PlanJob(request, timeout=START_S)
    assert adds_up(plan.estimate)
    assert plan.estimate.model_state.parameter_count == 25_557_032
    assert [p.verdict for p in plan.placements] == [estimate_pb2.VERDICT_FITS] * 2
    large, small = plan.batch_sizes
    assert large.max_batch_size > 2 * small.max_batch_size > 128
    steps = plan.accumulation
    done = (steps.accumulation_steps - 1) * steps.micro_batch_size + steps.last_micro_batch_size
    assert done == 1024
    assert steps.micro_batch_size <= large.max_batch_size


def test_bert_estimated_in_mixed_precision(planner: MemoryPlannerStub) -> None:
    request = pb.EstimateMemoryRequest(gpu_type="nvidia-a100-40gb")
    request.job.micro_batch_size = 8
    request.job.model.catalog.name = "transformers/bert"
    request.job.inputs.add(shape=[512], dtype=job_pb2.DATA_TYPE_INT64)
    request.job.optimizer.type = job_pb2.OPTIMIZER_TYPE_ADAMW
    request.job.precision = job_pb2.PRECISION_AMP_BF16
    got = planner.EstimateMemory(request, timeout=START_S).estimate
    assert adds_up(got)
    assert got.breakdown.autocast_copy_bytes > 0
    assert got.model_state.parameter_bytes == 4 * got.model_state.parameter_count
    moments = got.model_state.optimizer_state_bytes - 2 * got.model_state.parameter_bytes
    assert 0 <= moments < 10_000  # and a step count for each parameter


def mnist() -> Any:
    """The perceptron of the tutorials, with its input features inferred."""
    job = job_pb2.TrainingJob(micro_batch_size=64)
    job.inputs.add(shape=[1, 28, 28])
    layers = job.model.layer_stack.layers
    layers.add().flatten.SetInParent()
    layers.add(linear=layers_pb2.Linear(out_features=128))
    layers.add().activation.SetInParent()
    layers.add(linear=layers_pb2.Linear(out_features=10))
    return job


def test_a_perceptron_on_mnist(planner: MemoryPlannerStub) -> None:
    request = pb.EstimateMemoryRequest(job=mnist())
    got = planner.EstimateMemory(request, timeout=START_S).estimate
    assert adds_up(got)
    assert got.model_state.parameter_count == 784 * 128 + 128 + 128 * 10 + 10
    assert got.breakdown.input_bytes > 0


def test_a_restarted_server_answers_from_its_store(data_dir: Path) -> None:
    answers = []
    request = pb.PlanJobRequest(job=mnist(), global_batch_size=1000)
    for _ in range(2):
        settings = Settings(listen="127.0.0.1:0", metrics_port=0, data_dir=data_dir, workers=1)
        server = serve(settings)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = MemoryPlannerStub(channel)
            answers.append(stub.PlanJob(request, timeout=START_S))
            assert stub.PlanJob(request, timeout=SOON_S) == answers[-1]
            started = Served(server, channel).metric('memplan_workers{state="stopped"}') == 0
        server.stop()
    assert answers[0] == answers[1]
    assert not started


def test_a_plan_is_complete_and_the_same_again(planner: MemoryPlannerStub) -> None:
    request = pb.PlanJobRequest(job=squeezenet(), global_batch_size=127)
    first = planner.PlanJob(request, timeout=START_S)
    assert len(first.placements) == len(first.batch_sizes) > 10
    plan = first.accumulation
    done = (plan.accumulation_steps - 1) * plan.micro_batch_size + plan.last_micro_batch_size
    assert done == 127
    assert planner.PlanJob(request, timeout=SOON_S) == first


def test_more_free_memory_never_means_a_smaller_batch(planner: MemoryPlannerStub) -> None:
    request = pb.RecommendBatchSizeRequest(job=squeezenet(0))
    for free_gib in (1, 2, 4, 8):
        request.gpus.add(gpu_type="nvidia-t4", free_bytes=free_gib << 30)
    answer = planner.RecommendBatchSize(request, timeout=START_S)
    largest = [found.max_batch_size for found in answer.batch_sizes]
    assert largest == sorted(set(largest))


def test_models_of_every_library_can_be_named(planner: MemoryPlannerStub) -> None:
    for name in ("torchvision/resnet50", "timm/vit_base_patch16_224", "transformers/bert"):
        listed = planner.ListModels(pb.ListModelsRequest(filter=name), timeout=START_S).models
        assert name in [model.name for model in listed]
        assert {model.library for model in listed} == {name.partition("/")[0]}


def test_an_image_the_wrong_way_round_is_recognised(planner: MemoryPlannerStub) -> None:
    job = squeezenet()
    job.inputs[0].shape[:] = [64, 64, 3]
    with pytest.raises(grpc.RpcError) as raised:
        planner.EstimateMemory(pb.EstimateMemoryRequest(job=job), timeout=START_S)
    refusal = Refusal.of(raised.value)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == {"job.inputs[0].shape"}


def test_a_name_may_carry_the_tag_of_pretrained_weights(planner: MemoryPlannerStub) -> None:
    request = pb.EstimateMemoryRequest(job=squeezenet(), gpu_type="nvidia-t4")
    request.job.inputs.pop()
    request.job.model.catalog.name = "timm/resnet18.a1_in1k"
    got = planner.EstimateMemory(request, timeout=START_S).estimate
    assert got.model_state.parameter_count == 11_689_512
    for wrong in ("timm/resnet18.no_such_tag", "timm/resnet181"):
        request.job.model.catalog.name = wrong
        with pytest.raises(grpc.RpcError) as caught:
            planner.EstimateMemory(request, timeout=START_S)
        refusal = Refusal.of(caught.value)
        assert refusal.code is grpc.StatusCode.NOT_FOUND
        assert "timm/resnet18" in refusal.details["ErrorInfo"].metadata["nearest"]


def test_an_earlier_name_of_a_model_is_resolved_and_said(planner: MemoryPlannerStub) -> None:
    request = pb.EstimateMemoryRequest(job=squeezenet(), gpu_type="nvidia-t4")
    request.job.inputs.pop()
    request.job.model.catalog.name = "timm/ssl_resnet18"
    got = planner.EstimateMemory(request, timeout=START_S).estimate
    assert got.model_state.parameter_count == 11_689_512
    assert any("timm/resnet18.fb_ssl_yfcc100m_ft_in1k" in said for said in got.assumptions)
    listed = planner.ListModels(pb.ListModelsRequest(filter="ssl_resnet18"), timeout=SOON_S)
    assert not listed.models
