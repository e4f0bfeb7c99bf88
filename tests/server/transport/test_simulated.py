"""From a request to an answer with real models, through a worker that really simulates."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from serving import SOON_S, Refusal

from memplan.v1 import job_pb2
from memplan.v1 import planner_pb2 as pb
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub

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
    parts = [value for _, value in got.breakdown.ListFields()]
    assert sum(parts) == got.device_used_bytes
    assert got.model_state.parameter_bytes == 4 * got.model_state.parameter_count
    assert got.model_state.optimizer_state_bytes >= 2 * got.model_state.parameter_bytes
    assert got.library_versions["torch"]


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
