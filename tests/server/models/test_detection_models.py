"""torchvision's detection models: what they are fed with, their options, refusals."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch
from building import named, parameters, violation
from torch import nn

from memplan.types import Assumptions, InputTensor, Loss, Precision
from memplan_server.errors import InvalidJob
from memplan_server.models import build, extract_loss

FASTER = "torchvision/fasterrcnn_resnet50_fpn"
MASK = "torchvision/maskrcnn_resnet50_fpn"


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        (FASTER, (3, 800, 1333), 41_755_286),
        (MASK, (3, 800, 1333), 44_401_393),
        ("torchvision/keypointrcnn_resnet50_fpn", (3, 800, 1333), 59_137_258),
        ("torchvision/retinanet_resnet50_fpn_v2", (3, 800, 1333), 38_198_935),
        ("torchvision/fcos_resnet50_fpn", (3, 800, 1333), 32_269_600),
        ("torchvision/ssd300_vgg16", (3, 300, 300), 35_641_826),
    ],
)
def test_published_sizes_and_default_images(name: str, shape: tuple[int, ...], count: int) -> None:
    built = build(named(name))
    assert parameters(built) == count
    assert [image.shape for image in built.inputs] == [shape]
    assert built.per_sample
    assert built.returns_loss
    shown = "x".join(map(str, shape))
    assert any(f"{shown}, the default of {name}" in said for said in built.assumptions)


@pytest.mark.parametrize(
    ("name", "config", "shapes"),
    [
        (FASTER, {}, {}),
        (MASK, {}, {"masks": (5, 100, 200)}),
        ("torchvision/keypointrcnn_resnet50_fpn", {}, {"keypoints": (5, 17, 3)}),
        ("torchvision/keypointrcnn_resnet50_fpn", {"num_keypoints": 4}, {"keypoints": (5, 4, 3)}),
    ],
)
def test_the_targets_of_an_image(name: str, config: dict[str, Any], shapes: dict[str, Any]) -> None:
    image = InputTensor(shape=(3, 100, 200))
    five = Assumptions(boxes_per_image=5)
    built = build(named(name, image, config=config, assumptions=five))
    expected = {"boxes": (5, 4), "labels": (5,), **shapes}
    assert {label.name: label.shape for label in built.labels} == expected


def test_boxes_lie_side_by_side_in_the_image() -> None:
    for count in (1, 2, 8, 9, 10):
        stated = Assumptions(boxes_per_image=count)
        built = build(named(FASTER, InputTensor(shape=(3, 100, 200)), assumptions=stated))
        boxes = built.stated["boxes"].row
        assert boxes.shape == (count, 4)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes[:, 2:] <= torch.tensor([200, 100]) * 1.0001).all()
        assert len(boxes.unique(dim=0)) == count
    assert len(build(named(FASTER)).stated["boxes"].row) == 8


def test_pretrained_weights_decide_on_what_is_trained_and_are_not_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("weights were looked for on the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    pretrained = build(named(FASTER))
    weights = build(named(FASTER, config={"weights": "COCO_V1"}))
    scratch = build(named(FASTER, config={"weights_backbone": None}))
    for built, frozen in ((pretrained, True), (weights, True), (scratch, False)):
        assert any(not p.requires_grad for p in built.module.parameters()) == frozen
        assert any(isinstance(m, nn.BatchNorm2d) for m in built.module.modules()) != frozen
        assert any("not trained" in said for said in built.assumptions) == frozen
    all_frozen = build(named(FASTER, config={"trainable_backbone_layers": 0}))
    body = all_frozen.module.get_submodule("backbone.body")
    assert not any(p.requires_grad for p in body.parameters())


def test_the_largest_of_several_sizes_is_stated() -> None:
    built = build(named(FASTER, config={"min_size": [320, 480]}))
    assert "images are resized to the largest of min_size, 480" in built.assumptions


@pytest.mark.parametrize(
    ("job", "field", "words"),
    [
        (named(FASTER, config={"aux_loss": True}), "config.aux_loss", "no such option"),
        (named(FASTER, config={"weights": "COCO_V9"}), "config", "COCO_V9"),
        (named(FASTER, loss=Loss.CROSS_ENTROPY), "job.loss", "losses itself"),
        (named(FASTER, precision=Precision.BF16), "job.precision", "amp-bf16"),
        (named(FASTER, InputTensor(name="x", shape=(3, 520, 520))), "inputs[0].name", "images"),
        (named(FASTER, InputTensor(shape=(520, 520, 3))), "inputs[0].shape", "HxWxC"),
        (named(FASTER, InputTensor(shape=(1, 8, 8))), "inputs[0].shape", "RGB"),
        (
            named(MASK, InputTensor(shape=(3, 8, 8)), InputTensor(name="masks", shape=(8, 8))),
            "job.inputs",
            "one input, images",
        ),
        (named("torchvision/resnet18", loss=Loss.MODEL), "job.loss", "no loss of its own"),
    ],
)
def test_what_does_not_go_together_is_refused(job: Any, field: str, words: str) -> None:
    found = violation(job)
    assert found.field.endswith(field)
    assert words in found.description


def test_an_image_of_another_model_is_accepted_in_any_size() -> None:
    built = build(named("torchvision/retinanet_resnet50_fpn", InputTensor(shape=(3, 37, 1000))))
    assert built.inputs[0].shape == (3, 37, 1000)
    with pytest.raises(InvalidJob):
        build(named(FASTER, InputTensor(shape=(3, 8, 8, 8))))


def test_several_losses_are_added_up() -> None:
    losses = {"classifier": torch.tensor(1.0), "box": torch.tensor(2.5)}
    assert extract_loss(losses) == 3.5
    with pytest.raises(ValueError, match="no loss"):
        extract_loss({"scores": torch.zeros(3)})
