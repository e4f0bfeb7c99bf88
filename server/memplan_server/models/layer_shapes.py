"""Shapes of one sample on their way through a layer stack: arithmetic only, no tensors.

    convolved(28, kernel=3, stride=2, padding=1, dilation=1)     # 14

Sources: the formulas under "Shape" in PyTorch's documentation of Conv2d, ConvTranspose2d, MaxPool2d
and AvgPool2d (ceil_mode=False).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "MOST_ELEMENTS",
    "convolved",
    "looks_channels_last",
    "per_dimension",
    "reshaped",
    "spoken",
    "transposed_convolved",
]

MOST_ELEMENTS = 2**40
"""Elements of one tensor of one sample, or of one parameter."""

_CHANNELS_OF_IMAGES = (1, 3, 4)
_SMALLEST_IMAGE = 8


def spoken(shape: Sequence[int]) -> str:
    """(3, 32, 32) as `3x32x32`."""
    return "x".join(map(str, shape)) or "one number"


def per_dimension(values: Sequence[int], dimensions: int, default: int) -> tuple[int, ...] | None:
    """One value for each dimension; None when there are neither one nor as many as dimensions."""
    if not values:
        return (default,) * dimensions
    if len(values) == 1:
        return (values[0],) * dimensions
    return tuple(values) if len(values) == dimensions else None


def convolved(size: int, *, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Size of a dimension after a convolution or pooling; below 1 when the kernel does not fit."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def transposed_convolved(
    size: int, *, kernel: int, stride: int, padding: int, dilation: int, output_padding: int
) -> int:
    """Size of a dimension after a transposed convolution."""
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1


def reshaped(shape: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...] | None:
    """`wanted` with its -1 filled in; None when `shape` does not have as many elements."""
    total, known = math.prod(shape), math.prod(n for n in wanted if n != -1)
    if -1 in wanted:
        if known < 1 or total % known:
            return None
        return tuple(total // known if n == -1 else n for n in wanted)
    return tuple(wanted) if total == known else None


def looks_channels_last(shape: Sequence[int]) -> bool:
    """Whether an input looks like HxWxC: 28x28x1, 224x224x3."""
    if len(shape) != 3:
        return False
    height, width, channels = shape
    return channels in _CHANNELS_OF_IMAGES and min(height, width) >= _SMALLEST_IMAGE
