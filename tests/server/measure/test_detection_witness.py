"""Detection models really trained on the CPU, against the simulated GPU.

torchvision's compiled operators may not load here: references in NumPy stand in for them, which
nobody watches. Real models are brought to the limits that a simulation takes for granted: so few
positive proposals are sampled that the ground-truth boxes among the proposals are enough.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from memplan.types import (
    Assumptions,
    CatalogModel,
    InputTensor,
    Model,
    Optimizer,
    OptimizerType,
    TrainingJob,
)
from memplan_server.allocator import replay
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.jobs import normalize
from memplan_server.measure.comparison import compare_events
from memplan_server.measure.events import WORKSPACE, Events
from memplan_server.measure.request import Request
from memplan_server.measure.run import run
from memplan_server.measure.simulated import simulate
from memplan_server.models import libraries

GPU = GpuCatalog.load().get("nvidia-a100-40gb")
BOXES = 4
SMALL = {"min_size": 96, "max_size": 128}
SAMPLED = {
    "rpn_post_nms_top_n_train": 40,
    "box_batch_size_per_image": 16,
    "box_positive_fraction": BOXES / 16,
}


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    order = scores.sort(descending=True, stable=True)[1]
    sorted_boxes = boxes.numpy()[order.numpy()]
    low = np.maximum(sorted_boxes[:, None, :2], sorted_boxes[None, :, :2])
    high = np.minimum(sorted_boxes[:, None, 2:], sorted_boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    area = (sorted_boxes[:, 2:] - sorted_boxes[:, :2]).prod(-1)
    overlap = shared / (area[:, None] + area - shared) > iou_threshold
    gone = np.zeros(len(order), bool)
    kept = []
    for index in range(len(order)):
        if not gone[index]:
            kept.append(index)
            gone |= overlap[index]
    return order[torch.tensor(kept, dtype=torch.int64)]


class RoiAlign(torch.autograd.Function):
    """The operator's shapes and what it keeps; its values do not matter."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, rois: torch.Tensor, size: Any) -> torch.Tensor:
        ctx.save_for_backward(rois)
        ctx.shape = features.shape
        return features.new_zeros((len(rois), features.shape[1], *size))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grads[0].new_zeros(ctx.shape), None, None


def roi_align(
    input: torch.Tensor, boxes: torch.Tensor, output_size: Any, *_: Any, **__: Any
) -> torch.Tensor:
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    pooled: torch.Tensor = RoiAlign.apply(input, boxes, size)
    return pooled


@pytest.fixture(autouse=True)
def operators(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries.load("torchvision")
    monkeypatch.setattr(sys.modules["torchvision.ops.boxes"], "nms", nms)
    for module in ("ops.poolers", "models.detection.roi_heads"):
        monkeypatch.setattr(sys.modules[f"torchvision.{module}"], "roi_align", roi_align)


def peak(events: Events) -> int:
    """Without the workspaces of CUDA's libraries, which the CPU has none of."""
    names = map(events.operator, range(len(events.sizes)))
    sizes = [
        0 if name.endswith(WORKSPACE) else size
        for name, size in zip(names, events.sizes, strict=True)
    ]
    return replay(events.events, np.array(sizes, np.int64)).peak_allocated_bytes


MODELS = [
    ("fasterrcnn_mobilenet_v3_large_fpn", SMALL | SAMPLED),
    pytest.param("maskrcnn_resnet50_fpn", SMALL | SAMPLED, marks=pytest.mark.slow),
    pytest.param("keypointrcnn_resnet50_fpn", SMALL | SAMPLED, marks=pytest.mark.slow),
    pytest.param("retinanet_resnet50_fpn", SMALL, marks=pytest.mark.slow),
    pytest.param("fcos_resnet50_fpn", SMALL, marks=pytest.mark.slow),
    pytest.param("ssd300_vgg16", {}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "config"), MODELS)
def test_a_real_step_takes_what_is_simulated(name: str, config: dict[str, Any]) -> None:
    model = CatalogModel(name=f"torchvision/{name}", config=config)
    job = normalize(
        TrainingJob(
            model=Model(catalog=model),
            inputs=(InputTensor(shape=(3, 96, 120)),),
            micro_batch_size=2,
            optimizer=Optimizer(type=OptimizerType.SGD, momentum=0.9),
            assumptions=Assumptions(boxes_per_image=BOXES),
        )
    )
    request = Request(job=job, device_type="cpu", warmup_steps=0, steps=2, history=True)
    measured, simulated = run(request).seen.events, simulate(job, GPU).events
    assert measured is not None
    assert peak(simulated) == pytest.approx(peak(measured), rel=0.005)
    found = compare_events(measured, simulated)
    # SSD makes its default boxes on the host, which is where all of a run on the CPU is.
    assert found.matched_allocations > 0.75 * found.measured_allocations
