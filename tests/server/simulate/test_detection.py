"""What depends on predictions follows from the model's configuration."""

from __future__ import annotations

from typing import Any

import pytest
from jobs import catalog_job

from memplan.types import Assumptions, InputTensor, Precision
from memplan_server.allocator import replay
from memplan_server.simulate import worker
from memplan_server.timeline import Category, Timeline

AMPERE = (8, 0)
MOBILE = "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"
SMALL = {"min_size": 64, "max_size": 64}


def traced(batch: int = 2, config: dict[str, Any] | None = None, **fields: Any) -> Timeline:
    job = catalog_job(
        fields.pop("name", MOBILE),
        SMALL | (config or {}),
        inputs=(InputTensor(shape=(3, 64, 64)),),
        micro_batch_size=batch,
        **fields,
    )
    return Timeline.from_bytes(worker.trace(job, AMPERE))


def sizes(timeline: Timeline, batch: int = 2) -> set[int]:
    return set(timeline.sizes(batch).tolist())


def peak(timeline: Timeline, batch: int) -> int:
    return replay(timeline.events.tolist(), timeline.sizes(batch)).peak_allocated_bytes


def test_as_many_proposals_are_pooled_as_are_sampled() -> None:
    config = {"rpn_post_nms_top_n_train": 200, "box_batch_size_per_image": 100}
    pooled = 256 * 7 * 7 * 4
    assert 2 * 100 * pooled in sizes(traced(config=config))
    # Fewer proposals than may be sampled: all of them, and the objects, which are added to them.
    config = {"rpn_post_nms_top_n_train": 50, "box_batch_size_per_image": 100}
    of_fewer = sizes(traced(config=config, assumptions=Assumptions(boxes_per_image=3)))
    assert 2 * (50 + 3) * pooled in of_fewer


def test_masks_are_computed_for_the_positive_ones() -> None:
    config = {"box_batch_size_per_image": 40, "box_positive_fraction": 0.5}
    found = sizes(traced(config=config, name="torchvision/maskrcnn_resnet50_fpn"))
    assert 2 * 20 * 256 * 14 * 14 * 4 in found
    assert 2 * 20 * 91 * 28 * 28 * 4 in found


@pytest.mark.slow
def test_memory_grows_with_the_batch_in_a_straight_line() -> None:
    at = {batch: peak(traced(batch), batch) for batch in (2, 4, 6)}
    assert at[6] - at[4] == pytest.approx(at[4] - at[2], rel=0.05)
    assert at[4] > at[2]


def test_each_image_is_a_tensor_of_its_own() -> None:
    three = traced(3)
    image = 3 * 64 * 64 * 4
    of_batch = zip(three.sizes(3), three.category, strict=True)
    inputs = [size for size, category in of_batch if category == Category.INPUT]
    assert inputs.count(image) >= 3
    assert not three.affine


@pytest.mark.slow
def test_pooling_is_computed_in_float32_under_autocast() -> None:
    config = {"rpn_post_nms_top_n_train": 200, "box_batch_size_per_image": 96}
    mixed = traced(config=config, precision=Precision.AMP_BF16)
    pooled = 2 * 96 * 256 * 7 * 7  # all on one level, as the image is small
    assert {4 * pooled, 2 * pooled} <= sizes(mixed)  # and then in the features' type


@pytest.mark.slow
def test_freezing_takes_less() -> None:
    frozen, trained = traced(), traced(config={"weights_backbone": None})
    assert peak(frozen, 2) < peak(trained, 2)
    assert frozen.gradient_bytes < trained.gradient_bytes
