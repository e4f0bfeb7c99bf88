"""Detection models asked about at a real server."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from serving import Refusal

from memplan.v1 import estimate_pb2, job_pb2
from memplan.v1 import planner_pb2 as pb
from memplan.v1.planner_pb2_grpc import MemoryPlannerStub

START_S = 120.0
MOBILE = "fasterrcnn_mobilenet_v3_large_320_fpn"
SMALL = {"min_size": 64, "max_size": 64}


def detection(name: str, batch_size: int = 2, config: dict[str, Any] | None = None) -> Any:
    job = job_pb2.TrainingJob(micro_batch_size=batch_size)
    job.model.catalog.name = f"torchvision/{name}"
    job.model.catalog.config.update(SMALL if config is None else config)
    job.inputs.add(shape=[3, 64, 64])
    job.optimizer.momentum = 0.9
    return job


def estimated(planner: MemoryPlannerStub, job: Any) -> Any:
    request = pb.EstimateMemoryRequest(job=job, gpu_type="nvidia-t4")
    return planner.EstimateMemory(request, timeout=START_S).estimate


def test_what_a_detector_is_taken_to_find_is_said(planner: MemoryPlannerStub) -> None:
    got = estimated(planner, detection(MOBILE))
    for sentence in (
        "each image has 8 objects side by side (boxes_per_image: 8)",
        "non-maximum suppression keeps as many boxes as the model is configured to take",
        "as many proposals match an object as are sampled (128 of 512 in each image)",
        "proposals are spread evenly over the levels of the feature pyramid",
    ):
        assert sentence in got.assumptions
    assert not any("routers" in sentence for sentence in got.assumptions)


@pytest.mark.slow
def test_the_largest_batch_of_a_detector(planner: MemoryPlannerStub) -> None:
    """ssdlite cannot be trained on a single image: batch norms would see one value."""
    job = detection("ssdlite320_mobilenet_v3_large", config={})
    request = pb.RecommendBatchSizeRequest(job=job, max_batch_size=5)
    request.gpus.add(gpu_type="nvidia-t4")
    (found,) = planner.RecommendBatchSize(request, timeout=START_S).batch_sizes
    assert (found.max_batch_size, found.recommended_batch_size) == (5, 5)
    assert found.formula.batch_size > 5


@pytest.mark.slow
def test_a_detector_planned(planner: MemoryPlannerStub) -> None:
    request = pb.PlanJobRequest(job=detection(MOBILE))
    for free_mib in (512, 640):
        request.gpus.add(gpu_type="nvidia-t4", free_bytes=free_mib << 20)
    plan = planner.PlanJob(request, timeout=START_S)
    assert all(p.verdict != estimate_pb2.VERDICT_UNSPECIFIED for p in plan.placements)
    small, large = (found.max_batch_size for found in plan.batch_sizes)
    assert 0 <= small < large


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config"), [("retinanet_resnet50_fpn", None), ("ssd300_vgg16", {})]
)
def test_single_stage_detectors_estimated(
    planner: MemoryPlannerStub, name: str, config: dict[str, Any] | None
) -> None:
    got = estimated(planner, detection(name, config=config))
    parts = [value for _, value in got.breakdown.ListFields()]
    assert sum(parts) == got.device_used_bytes
    assert any("boxes_per_image: 8" in said for said in got.assumptions)
    assert not any("non-maximum" in said for said in got.assumptions)


def test_masks_are_targets_and_count_with_the_objects(planner: MemoryPlannerStub) -> None:
    job = detection("maskrcnn_resnet50_fpn")
    few = estimated(planner, job)
    job.assumptions.boxes_per_image = 16
    many = estimated(planner, job)
    images = 2 * 3 * 64 * 64 * 4
    of_targets = [got.breakdown.input_bytes - images for got in (few, many)]
    assert of_targets[0] >= 2 * 8 * 64 * 64
    assert of_targets[1] - of_targets[0] >= 2 * 8 * 64 * 64
    assert any("boxes_per_image: 16" in said for said in many.assumptions)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda job: setattr(job, "loss", job_pb2.LOSS_CROSS_ENTROPY), "job.loss"),
        (lambda job: setattr(job.inputs[0], "name", "x"), "job.inputs[0].name"),
        (
            lambda job: job.model.catalog.config.update({"aux_loss": True}),
            "job.model.catalog.config.aux_loss",
        ),
        (
            lambda job: setattr(job.assumptions, "boxes_per_image", 10_001),
            "job.assumptions.boxes_per_image",
        ),
    ],
)
def test_what_is_for_other_models_is_refused(
    planner: MemoryPlannerStub, change: Any, field: str
) -> None:
    job = detection("fasterrcnn_resnet50_fpn")
    change(job)
    with pytest.raises(grpc.RpcError) as raised:
        estimated(planner, job)
    refusal = Refusal.of(raised.value)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == {field}
