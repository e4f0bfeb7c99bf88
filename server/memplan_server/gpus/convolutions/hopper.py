"""What cuDNN takes on Hopper (compute capability 9.0), found from single convolutions.

Tensor cores read channels-last operands. Of contiguous tensors cuDNN keeps copies in that layout in
its workspace, image, result and kernel alike, in every direction, with channels filled up to 16
bytes (in groups: to a power of two or a multiple of 32 in each group). It spares them

- where few elements are summed for each element of the result, as in first layers;
- in 1x1 convolutions of every pixel, which are products of matrices for each sample. Their kernel's
  gradient is then a product for each sample in float32, and the sum of these. Where that would take
  more than copies, or matrices are small for their depth, copies are made after all;
- where tensors are channels-last with aligned channels.

Gradients of kernels are summed up in several parts at a time (`parts.py`).

Sources: 23,805 convolutions in two dimensions, of 40 models from torchvision and timm, with 1, 8,
32, 48 and 128 samples, run alone on an H200 with torch 2.11 and cuDNN 9.19.0, `cudnn.benchmark`
off: what PyTorch's allocator gave beside operands and result. Whether PyTorch or cuDNN asked for it
was not told apart. `bench/convolution_scores.py` says how far the rules are right; thresholds are
those that suit most measurements.

Known limitations: cuDNN changes its engine with the number of samples, and with lengths, more
often than is modelled. Of depthwise convolutions, channels-last, only 7x7 kernels were measured.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from memplan_server.gpus.convolutions.parts import LIMITS, sums_of_parts
from memplan_server.gpus.convolutions.shape import FLOAT32_BYTES, GROUP, Shape

if TYPE_CHECKING:
    from memplan_server.timeline import Convolution

__all__ = ["MANY_SAMPLES", "steps", "workspace"]

MIB = 1 << 20

MANY_SAMPLES = 128
"""From here on products of matrices by sample are preferred to copies; they are not with 48. What
lies between was not measured: copies take more."""

_SEVERAL_SAMPLES = 16
"""Of few pixels, from here on as well; measured at 8 and 32."""

_SOME_PIXELS, _MANY_PIXELS = 50_000, 101_000
"""Of the images of all samples. Measured were 25,088 and 100,352, 32 of 56x56, and 131,072."""

_NOTHING = 0, 0

_ADDED_BYTES = 16
"""With copies, whatever it is for: where sizes are multiples of 512 bytes, one block more is taken.
What fits: 1 to 32."""

_PARTS = 64
"""Sums of a kernel's gradient at a time, at most."""

_WHOLE_GROUPS = {
    (False, "fprop"): 3,
    (False, "dgrad"): 5,
    (False, "wgrad"): 5,
    (True, "fprop"): 3,
    (True, "dgrad"): 2,
    (True, "wgrad"): 2,
}
"""Up to so many groups their channels are not filled up, by half precision and direction."""


def steps(convolution: Convolution) -> tuple[int, ...]:
    """Numbers of samples, rising, at which a workspace may change otherwise than in proportion."""
    if convolution.direction == "fprop":
        pixels = math.prod(convolution.image[1:])
        limits = {-(-limit // pixels) for limit in (_SOME_PIXELS, _MANY_PIXELS)}
        return tuple(sorted({0, _SEVERAL_SAMPLES, MANY_SAMPLES, *limits}))
    if convolution.direction != "wgrad" or convolution.groups > 1:
        return 0, MANY_SAMPLES
    pixels = math.prod(convolution.result[1:])
    return tuple(
        sorted({0, _SEVERAL_SAMPLES, MANY_SAMPLES, *(-(-limit // pixels) for limit in LIMITS)})
    )


def workspace(convolution: Convolution, samples: int, multiprocessors: int) -> tuple[int, int]:
    """Bytes for each sample and bytes whatever their number, from this step to the next."""
    shape = Shape(convolution, whole_groups=_WHOLE_GROUPS)
    if shape.depthwise:
        return _depthwise(shape)
    parts = _parts(shape, samples, multiprocessors)
    if convolution.channels_last:
        return _channels_last(shape, parts)
    if convolution.groups > 1:
        return _groups(shape, parts)
    if shape.product:
        return _product(shape, parts, samples)
    return _contiguous(shape, parts, of_all=samples * shape.pixels)


def _copies(shape: Shape, parts: int) -> tuple[int, int]:
    """Channels-last copies of everything."""
    return shape.image + shape.result, shape.kernel + parts + _ADDED_BYTES


def _parts(shape: Shape, samples: int, multiprocessors: int) -> int:
    """Sums of a kernel's gradient for several parts of the pixels at a time.

    They are as many as keep the multiprocessors busy: many of small kernels, few of large ones. In
    groups, and mostly of few channels, how many was not understood.
    """
    if shape.direction != "wgrad":
        return 0
    if shape.convolution.groups == 1:
        understood = sums_of_parts(shape, samples, multiprocessors)
        if understood is not None:
            return understood
    return min((3 if shape.half else 8) * MIB, _PARTS * shape.sums)


def _contiguous(shape: Shape, parts: int, *, of_all: int) -> tuple[int, int]:
    if shape.summed <= _direct(shape):
        return _NOTHING
    each, fixed = _copies(shape, parts)
    return (each - shape.result if _writes_contiguous(shape, of_all) else each), fixed


def _direct(shape: Shape) -> int:
    """The most products for each element with which kernels work on tensors as they lie."""
    if shape.half:
        return 64 if shape.direction == "fprop" else 0
    if shape.direction == "wgrad":
        return 80
    if shape.taps == 1:
        return 72 if shape.direction == "fprop" else 144
    return 128 if shape.direction == "fprop" else 0


def _writes_contiguous(shape: Shape, of_all: int) -> bool:
    """Forward in float32: some kernels read copies and write the result as it is asked for.

    `of_all`: pixels of the images of all samples.
    """
    if shape.half or shape.direction != "fprop":
        return False
    if shape.strided:
        large = shape.taps > 1 or (shape.pixels >= 56 * 56 and of_all >= _SOME_PIXELS)
        return large and shape.results >= 2 * shape.channels >= 48
    if shape.results == shape.channels == 64 and shape.taps == 9:
        return of_all < _MANY_PIXELS
    return shape.results == 2 * shape.channels and 48 <= shape.channels <= 64


def _groups(shape: Shape, parts: int) -> tuple[int, int]:
    narrow = shape.half and shape.direction == "wgrad" and shape.channels <= 4
    return _NOTHING if narrow else _copies(shape, parts)


def _product(shape: Shape, parts: int, samples: int) -> tuple[int, int]:
    many = samples >= MANY_SAMPLES
    if shape.pixels == 1:
        return _NOTHING
    if shape.direction != "wgrad":
        return _copies(shape, 0) if _copied(shape, samples) else _NOTHING
    narrow = not shape.half and shape.channels <= 40
    if (narrow and not many) or not _by_sample(shape, samples):
        return _copies(shape, parts)
    return shape.sums, 0


def _by_sample(shape: Shape, samples: int) -> bool:
    """Whether a kernel's gradient is a product for each sample, and the sum of these.

    The fewer samples, the larger these may be beside copies; more so where pixels are odd.
    """
    share = shape.sums / (shape.image + shape.result)
    if samples >= MANY_SAMPLES:
        return share <= 1.2
    odd = shape.pixels % 4 != 0
    if shape.half:
        return share <= 1.2 or (odd and shape.channels <= min(400, shape.results))
    if not odd:
        return share <= 2.5
    return share <= (7.5 if samples < _SEVERAL_SAMPLES else 3.5)


def _copied(shape: Shape, samples: int) -> bool:
    """Whether a product is computed on copies.

    It is where matrices are small for their depth, and where pixels are odd and channels many.
    """
    pixels, many = shape.pixels, samples >= MANY_SAMPLES
    several = samples >= _SEVERAL_SAMPLES or shape.direction != "fprop"
    deep = several and shape.sums > 3.5 * (shape.image + shape.result)
    odd = pixels % 4 != 0 and not (many and pixels > 400)
    if shape.direction == "fprop":
        wide = shape.channels >= (512 if shape.half else 704)
        return pixels % 4 != 0 and (deep or (odd and wide))
    wide = shape.half and shape.channels >= 704
    return (deep and pixels <= 64) or (odd and wide)


def _channels_last(shape: Shape, parts: int) -> tuple[int, int]:
    """Nothing is copied but what has to be filled up, and where float32 has no such kernel."""
    if shape.convolution.groups > 1:
        return _channels_last_groups(shape, parts)
    if not shape.half and shape.dilation > 4:
        each, fixed = _copies(shape, parts)
        return (each - shape.image if shape.direction == "dgrad" else each), fixed
    if shape.channels <= 3:
        return _first(shape, parts)
    if not shape.aligned and (shape.taps > 1 or min(shape.channels, shape.results) >= 48):
        return _filled_up(shape, parts)
    return _copies(shape, parts) if _transposed(shape) else (0, parts)


def _transposed(shape: Shape) -> bool:
    """A kernel's gradient in float32: of few channels, and of dilated kernels on many."""
    if shape.half or shape.direction != "wgrad" or shape.taps == 1:
        return False
    few = shape.channels <= 24 and shape.results <= 64
    return few or (shape.dilation > 1 and shape.summed >= 4096)


def _filled_up(shape: Shape, parts: int) -> tuple[int, int]:
    """Copies of tensors whose channels are not aligned; of all of them in a product."""
    if shape.taps == 1:
        return _copies(shape, parts)
    each = shape.image if shape.filled(shape.channels) != shape.channels else 0
    each += shape.result if shape.filled(shape.results) != shape.results else 0
    return each, shape.kernel + parts


def _first(shape: Shape, parts: int) -> tuple[int, int]:
    """Images of red, green and blue, channels-last."""
    large = shape.summed > 80
    if shape.half:
        return (shape.image if large or shape.direction == "wgrad" else 0), parts
    if shape.direction == "wgrad":
        return _copies(shape, parts) if large else _NOTHING
    return (shape.image, 0) if large or shape.strided else _NOTHING


def _channels_last_groups(shape: Shape, parts: int) -> tuple[int, int]:
    """Groups that can be computed as they lie are equally wide, and a power of two up to 32."""
    lies = shape.channels == shape.results <= GROUP and shape.channels.bit_count() == 1
    if not lies:
        return _copies(shape, parts)
    if shape.half or shape.direction == "fprop":
        return _NOTHING
    if shape.direction == "dgrad":
        return (shape.result, shape.kernel) if shape.strided else _NOTHING
    return _copies(shape, parts)


def _depthwise(shape: Shape) -> tuple[int, int]:
    """PyTorch has kernels of its own for contiguous tensors, which take nothing."""
    if not shape.convolution.channels_last or shape.direction != "wgrad":
        return _NOTHING
    if shape.half:
        return 8 * shape.sums, 0
    large = shape.pixels >= 56 * 56 or (shape.pixels >= 28 * 28 and shape.convolution.groups <= 240)
    if shape.taps <= 25 or not large:
        return _NOTHING
    vector = 16 // FLOAT32_BYTES  # each group of one channel is filled up to a vector
    return vector * (shape.image + shape.result), 0
