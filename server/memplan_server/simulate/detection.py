"""torchvision's object detection where it depends on what the model predicts.

What is predicted has no values here. How many boxes there are at each stage is what the model's
configuration allows at most, which is what training comes to and what takes the most memory:

    boxes after non-maximum suppression     all, of which the model keeps `post_nms_top_n`
    proposals that match an object          as many as are sampled: `positive_fraction` of
                                            `batch_size_per_image`
    proposals by level of the pyramid       evenly spread

Everything else is torchvision's own code: anchors are matched with the boxes that the job states.
Its compiled operators are described by what their CUDA kernels allocate, and keep for backward what
those keep, so they need not be there.

Sources: torchvision/csrc/ops/cuda/nms_kernel.cu, torchvision/csrc/ops/cuda/roi_align_kernel.cu,
torchvision/_autograd_registrations.py.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from memplan.fakes import known

__all__ = ["described"]

Tensor = torch.Tensor

_BOXES_IN_A_WORD = 64
_KEPT = "non-maximum suppression keeps as many boxes as the model is configured to take"
_MATCHED = "as many proposals match an object as are sampled ({0} of {1} in each image)"
_SPREAD = "proposals are spread evenly over the levels of the feature pyramid"


@contextlib.contextmanager
def described() -> Iterator[None]:
    """Within, torchvision's detection models run on the simulated GPU."""
    with contextlib.ExitStack() as stack:
        for module, path, make in _REPLACED:
            holder: Any = sys.modules.get(f"torchvision.{module}")
            *owners, name = path.split(".")
            for owner in owners:
                holder = getattr(holder, owner, None)
            if holder is not None:
                original = getattr(holder, name)
                stack.callback(setattr, holder, name, original)
                setattr(holder, name, make(original))
        yield


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of all boxes. A bit for each pair of them says whether they overlap."""
    with torch.no_grad():
        boxes, scores = _float_under_autocast(boxes), _float_under_autocast(scores)
        count = boxes.shape[0]
        _values, order = scores.sort(stable=True, dim=0, descending=True)
        _in_order = boxes.index_select(0, order)
        words = -(-count // _BOXES_IN_A_WORD)
        _overlaps = boxes.new_empty((count * words,), dtype=torch.int64)
        keep = boxes.new_zeros((count,), dtype=torch.bool)
        _state(keep, lambda: torch.ones(count, dtype=torch.bool), _KEPT)
        return order.masked_select(keep)


class _RoiAlign(torch.autograd.Function):
    """Keeps the boxes for backward, and of the features their shape."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, rois: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(rois)
        ctx.shape = features.shape
        pooled = features.new_zeros((rois.shape[0], features.shape[1], *size))
        if pooled.numel():
            _copies = features.contiguous(), rois.contiguous()
        return pooled

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (rois,) = ctx.saved_tensors
        gradient = grads[0].new_zeros(ctx.shape)
        _copy = rois.contiguous()
        return gradient, None, None


def _roi_align(
    input: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    features, rois = _float_under_autocast(input), _float_under_autocast(boxes)
    pooled: Tensor = _RoiAlign.apply(features, rois, size)  # type: ignore[no-untyped-call]
    return pooled.to(input.dtype)


def _float_under_autocast(tensor: Tensor) -> Tensor:
    """Autocast computes both operators in float32."""
    enabled = torch.is_autocast_enabled(tensor.device.type)
    return tensor.float() if enabled and tensor.is_floating_point() else tensor


def _largest(original: Callable[..., int]) -> Callable[..., int]:
    """Instead of one of several sizes at random."""
    return lambda transform, sizes: max(sizes)


def _matching(original: Callable[..., Any]) -> Callable[..., Any]:
    """`RoIHeads.assign_targets_to_proposals`, whose results decide on what is sampled."""

    def assign(heads: Any, proposals: Any, gt_boxes: Any, gt_labels: Any) -> Any:
        matched, labels = original(heads, proposals, gt_boxes, gt_labels)
        sampler = heads.fg_bg_sampler
        positive = int(sampler.batch_size_per_image * sampler.positive_fraction)
        said = _MATCHED.format(positive, sampler.batch_size_per_image)
        for index, label, boxes in zip(matched, labels, gt_boxes, strict=True):
            count, objects = label.shape[0], boxes.shape[0]
            _state(index, _matches(count, objects, positive), said)
            _state(label, _matches(count, 1, positive, first=1), said)
        return matched, labels

    return assign


def _matches(count: int, objects: int, positive: int, first: int = 0) -> Callable[[], Tensor]:
    """Objects in turn for the first `positive` of `count` proposals, 0 for the others."""

    def make() -> Tensor:
        index = torch.arange(count)
        return torch.where(index < positive, index % objects + first, 0)

    return make


def _spreading(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`LevelMapper.__call__`, whose result says which level each box is pooled from."""

    def levels_of(mapper: Any, boxes: list[Tensor]) -> Tensor:
        levels = original(mapper, boxes)
        number = mapper.k_max - mapper.k_min + 1
        counts = [b.shape[0] for b in boxes]
        _state(levels, lambda: torch.cat([torch.arange(n) % number for n in counts]), _SPREAD)
        return levels

    return levels_of


def _state(tensor: Tensor, make: Callable[[], Tensor], said: str) -> None:
    with _disable_current_modes():
        value = make()
    known.state(tensor, value, [said])


_REPLACED: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("ops.boxes", "nms", lambda _: _nms),
    ("ops.poolers", "roi_align", lambda _: _roi_align),
    ("models.detection.roi_heads", "roi_align", lambda _: _roi_align),
    ("models.detection.roi_heads", "RoIHeads.assign_targets_to_proposals", _matching),
    ("models.detection.transform", "GeneralizedRCNNTransform.torch_choice", _largest),
    ("ops.poolers", "LevelMapper.__call__", _spreading),
)
"""What of torchvision is replaced: module, name, and what makes its replacement of it."""
