"""torchvision's models for object detection, instance masks and keypoints.

Their training step is `losses = model(images, targets)`, with a list of images and a list with the
boxes, labels, masks and keypoints of each, and the loss is the sum of `losses`. The objects in an
image are as many as the job states (`Assumptions.boxes_per_image`), side by side in a grid. Sizes
that depend on what the model predicts are described in `simulate/detection.py`.

A builder that starts from pretrained weights makes another model than one that does not: batch
norms without statistics of the batch, and layers that are not trained. So its defaults stay, and
the weights are taken for loaded; `weights_backbone: null` in `config` starts from nothing.

Known limitation: all images have the size of the input. The model pads those of a batch to the
largest height and width among them.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from memplan.types import CatalogModel, DataType, InputTensor, Loss, Precision, TrainingJob
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import images, libraries, options
from memplan_server.models.built import BuiltModel, Stated
from memplan_server.models.construction import construction

__all__ = ["BOXES_PER_IMAGE", "PACKAGE", "build"]

PACKAGE = "torchvision.models.detection"
"""Of the builders of these models."""
BOXES_PER_IMAGE = 8
"""Objects in an image, where the job does not say."""

_FIELD = "job.model.catalog"
_WEIGHTS: Mapping[str, Any] = {"weights": str | None, "weights_backbone": str | None}
_SIZES: Mapping[str, Any] = {"min_size": int | list[int]}
"""Options that take more than their default tells."""
_NO_OPTIONS = frozenset({"progress"})


def build(job: TrainingJob, model: CatalogModel, builder: Callable[..., nn.Module]) -> BuiltModel:
    """The model of this builder. Raises `InvalidJob`."""
    _check_loss(job, model.name)
    given = options.checked(model.config, _allowed(builder), f"{_FIELD}.config", model.name)
    with construction(f"{_FIELD}.config" if model.config else f"{_FIELD}.name"), _weights_loaded():
        module = builder(**{"progress": False, **given})
    _check_precision(job, model.name, module)
    image, assumptions = images.resolve(job, _wanted(model.name, module))
    labels, stated = _targets(job, module, image.shape)
    return BuiltModel(
        module=module.train(),
        inputs=(image,),
        labels=labels,
        returns_loss=True,
        per_sample=True,
        stated=stated,
        assumptions=(*assumptions, *_assumed(module)),
    )


def _check_loss(job: TrainingJob, model: str) -> None:
    if job.loss not in (Loss.UNSPECIFIED, Loss.MODEL):
        said = f"{model} computes its losses itself, and their sum is trained; leave the loss out."
        raise InvalidJob(Violation("job.loss", said))


def _check_precision(job: TrainingJob, model: str, module: nn.Module) -> None:
    """Source: the types that nms_kernel.cu and roi_align_kernel.cu of torchvision dispatch over."""
    if job.precision is Precision.BF16 and hasattr(module, "roi_heads"):
        said = (
            f"{model} has bfloat16 weights and boxes then, for which torchvision's nms and "
            "roi_align have no CUDA kernel; amp-bf16 works."
        )
        raise InvalidJob(Violation("job.precision", said))


def _allowed(builder: Callable[..., nn.Module]) -> dict[str, Any]:
    """Options of the builder and of its class."""
    signature = inspect.signature(builder, eval_str=True)
    constructor = inspect.signature(signature.return_annotation.__init__, eval_str=True)
    allowed = options.describable(constructor) | options.describable(signature)
    allowed |= {name: kind for name, kind in _SIZES.items() if name in constructor.parameters}
    allowed |= _WEIGHTS
    return {name: kind for name, kind in allowed.items() if name not in _NO_OPTIONS}


@contextlib.contextmanager
def _weights_loaded() -> Iterator[None]:
    """Pretrained weights are neither fetched nor copied: their values take no part."""
    api = libraries.load("torchvision").models._api.WeightsEnum
    get, load = api.get_state_dict, nn.Module.load_state_dict
    api.get_state_dict = lambda *_, **__: {}
    nn.Module.load_state_dict = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        api.get_state_dict, nn.Module.load_state_dict = get, load  # type: ignore[method-assign]


def _wanted(model: str, module: Any) -> images.Wanted:
    """By default the images are of the largest size that the model does not make smaller."""
    transform = module.transform
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
    else:
        height, width = max(transform.min_size), transform.max_size
    remedy = "torchvision's models take RGB images."
    shape = (len(transform.image_mean), height, width)
    return images.Wanted(model=model, shape=shape, name="images", remedy=remedy)


def _targets(
    job: TrainingJob, module: Any, image: tuple[int, ...]
) -> tuple[tuple[InputTensor, ...], dict[str, Stated]]:
    """The labels of an image, and the values of those that the model decides by."""
    count = job.assumptions.boxes_per_image or BOXES_PER_IMAGE
    said = f"each image has {count} objects side by side (boxes_per_image: {count})"
    labels = [
        InputTensor(name="boxes", shape=(count, 4), dtype=DataType.FLOAT32),
        InputTensor(name="labels", shape=(count,), dtype=DataType.INT64),
    ]
    stated = {
        "boxes": Stated(row=_grid(count, *image[1:]), assumption=said),
        "labels": Stated(row=torch.ones(count, dtype=torch.int64, device="cpu"), assumption=said),
    }
    heads = getattr(module, "roi_heads", None)
    if heads is not None and heads.has_mask():
        masks = InputTensor(name="masks", shape=(count, *image[1:]), dtype=DataType.UINT8)
        labels.append(masks)
    if heads is not None and heads.has_keypoint():
        points = heads.keypoint_predictor.kps_score_lowres.out_channels
        labels.append(
            InputTensor(name="keypoints", shape=(count, points, 3), dtype=DataType.FLOAT32)
        )
    return tuple(labels), stated


def _grid(count: int, height: int, width: int) -> torch.Tensor:
    """[count, 4] boxes that cover the first cells of a square grid over the image."""
    cells = math.isqrt(count - 1) + 1
    index = torch.arange(count, device="cpu")
    rows, columns = index // cells, index % cells
    corners = torch.stack([columns, rows, columns + 1, rows + 1], dim=1)
    size = torch.tensor([width, height, width, height], device="cpu")
    return corners * size / cells


def _assumed(module: Any) -> Iterator[str]:
    yield "all images have the same size"
    sizes = module.transform.min_size
    if len(sizes) > 1:
        yield f"images are resized to the largest of min_size, {max(sizes)}"
    if any(not p.requires_grad for p in module.backbone.parameters()):
        yield "the first layers of the backbone are pretrained and not trained on"
