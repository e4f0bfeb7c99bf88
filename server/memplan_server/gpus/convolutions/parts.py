"""Partial sums of a kernel's gradient on Hopper, in cuDNN's workspace.

The gradient is a product of matrices: result channels by image channels and taps, summed over the
result's pixels of all samples. It is cut into tiles, and the pixels into parts, as many as
multiprocessors can work on at once. Each part of each tile has sums of its own in float32, and a
counter. So 3x3 on 80 channels in float32, on 132 multiprocessors, are 9 tiles of 128x128 in 14
parts: 126 x 65,536 bytes and a KiB.

Found from the measurements that `hopper.py` names. With enough pixels the larger half of what was
taken for dense kernels is exactly this; cuDNN has other ways to cut, which are not modelled. With
few pixels there are fewer parts. From how many on is read off the measurements, most of which have
1,568, 6,272, 25,088 or 100,352.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memplan_server.gpus.convolutions.shape import FLOAT32_BYTES

if TYPE_CHECKING:
    from memplan_server.gpus.convolutions.shape import Shape

__all__ = ["LIMITS", "sums_of_parts"]

LIMITS = tuple(
    sorted(
        {784, 1568, 2048, 4000, 6272, 16_384, 40_000, 100_000}
        | {1568 * n for n in (3, 4, 5, 6, 8, 12, 14, 16, 20, 24, 32, 48, 64, 80, 96, 112)}
    )
)
"""Pixels of all samples at which the number of parts, or the tiles, may change. Where parts rise
with the pixels in small steps, those of 7x7 and its multiples by 32 samples, few between them."""

_NARROW = 64
"""Channels of a narrow tile; the usual ones have twice as many. Channels are filled up to it."""

_FEW_CHANNELS = 32

_COUNTERS_BYTES = 160
"""Beside four for each part of a tile. What fits: 137 to 224."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """How many tiles of how many sums, and into how many parts each."""

    sums: int
    tiles: int
    parts: int

    @property
    def nbytes(self) -> int:
        if self.parts < 1:
            return 0
        pieces = self.tiles * self.parts
        return pieces * (self.sums + 1) * FLOAT32_BYTES + _COUNTERS_BYTES


_WHOLE = _Cut(0, 0, 0)

_HALF_PARTS = (1, 63), (2, 41), (7, 17), (11, 11), (40, 8)


def sums_of_parts(shape: Shape, samples: int, multiprocessors: int) -> int | None:
    """Bytes, for a convolution in one group. None where it is not known how tiles are cut."""
    pixels = samples * math.prod(shape.convolution.result[1:])
    if shape.product and shape.convolution.channels_last:
        return _whole_sums(shape, pixels, multiprocessors)
    if shape.channels <= _FEW_CHANNELS:
        return _few_channels(shape, pixels, multiprocessors)
    return (_half if shape.half else _single)(shape, pixels, multiprocessors).nbytes


def _few_channels(shape: Shape, pixels: int, multiprocessors: int) -> int | None:
    """Known of first layers of segmentation and the like: 3x3 on 32 channels, with many pixels."""
    many = pixels >= 100_000 and not shape.strided
    if not (many and shape.channels > _FEW_CHANNELS // 2 and shape.taps == 9):
        return None
    if shape.results > _NARROW:
        return None
    pieces = 500 if not shape.half else 350 if shape.results > _FEW_CHANNELS else 246
    return _Cut(_NARROW * _NARROW, pieces * multiprocessors // 132, 1).nbytes


def _cut(shape: Shape, results: int, channels: int, at_once: int) -> _Cut:
    """Tiles of so many channels of the result and of the image, in as many parts as can be."""
    return _tiles(shape.results, shape.channels, shape.taps, (results, channels), at_once)


def _tiles(rows: int, columns: int, taps: int, tile: tuple[int, int], at_once: int) -> _Cut:
    step = max(_NARROW, tile[1] // 2)
    filled = -(-columns // step) * step
    tiles = -(-filled * taps // tile[1]) * -(-rows // tile[0])
    return _Cut(math.prod(tile), tiles, at_once // tiles)


def _single(shape: Shape, pixels: int, multiprocessors: int) -> _Cut:
    """float32."""
    if shape.results <= _NARROW < shape.channels:
        sides = shape.channels, shape.results
        return _fewer(shape, _tiles(*sides, shape.taps, (64, 128), multiprocessors), pixels)
    if shape.channels <= _NARROW and shape.results <= 2 * _NARROW:
        width = _NARROW if shape.results <= _NARROW else 2 * _NARROW
        return _fewer(shape, _cut(shape, _NARROW, width, multiprocessors), pixels)
    usual = _cut(shape, 128, 128, multiprocessors)
    waves = usual.tiles / multiprocessors
    if waves > 0.5:
        return _many_tiles(usual, pixels, multiprocessors)
    if waves > 0.3:
        if pixels < (6272 if shape.taps == 1 else 2048 if shape.strided else 16_384):
            return _WHOLE
        wide = (256, 128) if shape.results % 256 == 0 else (128, 256)
        return _cut(shape, *wide, multiprocessors // 2)
    return _fewer(shape, usual, pixels)


def _many_tiles(usual: _Cut, pixels: int, multiprocessors: int) -> _Cut:
    """Only the tiles that are left when every multiprocessor has had its share are cut."""
    waves = usual.tiles / multiprocessors
    if 1 < waves <= 2 and pixels >= 2048:
        return _Cut(usual.sums, multiprocessors, 1)
    if waves < 2 / 3 and pixels >= 6272:
        return _Cut(usual.sums // 2, multiprocessors, 1)
    if waves > 2 and pixels >= 4000:  # measured for one kernel, DeepLab's 2048 to 256 channels
        return _Cut(usual.sums, usual.tiles, 4 if 16_384 <= pixels < 100_000 else 2)
    return _WHOLE


def _fewer(shape: Shape, cut: _Cut, pixels: int) -> _Cut:
    """What few pixels leave of the parts in float32; one part needs no sums of its own."""
    parts = cut.parts
    if shape.taps == 1:
        parts = min(parts, pixels // 784)
    elif pixels < 4000:
        parts = min(parts, 2) if pixels >= 2048 else 0
    elif pixels < 16_384 and parts > 3:
        if cut.tiles > 12:
            return _Cut(cut.sums // 2, 2 * cut.tiles, parts // 2)
        parts //= 2
    return _Cut(cut.sums, cut.tiles, parts) if parts > 1 else _WHOLE


def _half(shape: Shape, pixels: int, multiprocessors: int) -> _Cut:
    """Two bytes an element; parts are for 120 of 132 multiprocessors."""
    at_once = multiprocessors * 10 // 11
    if pixels < 16_384:
        return _WHOLE
    if shape.channels <= _NARROW or shape.results <= _NARROW:
        results, channels = (_NARROW if n <= _NARROW else 128 for n in _sides(shape))
        return _cut(shape, results, channels, at_once)
    usual = _cut(shape, 128, 128, at_once)
    if usual.tiles > at_once / 2:
        return _Cut(usual.sums // (1 if usual.tiles > at_once else 2), at_once, 1)
    if shape.taps > 4 and pixels >= (100_000 if shape.results > 128 else 40_000):
        if shape.strided or not 128 < shape.results <= 256:
            return usual
        return _cut(shape, 256, 128, at_once)
    if shape.taps > 4 and shape.results > 128 and (shape.channels > 128 or shape.results <= 192):
        return usual
    return _cut(shape, 128, _NARROW, at_once)


def _sides(shape: Shape) -> tuple[int, int]:
    return shape.results, shape.channels


def _whole_sums(shape: Shape, pixels: int, multiprocessors: int) -> int:
    """A product, channels-last: each part has the whole kernel's sums, not those of tiles."""
    tiles = math.prod(-(-n // 128) for n in _sides(shape))
    narrow = min(_sides(shape)) <= _NARROW and tiles <= 4
    if shape.half:
        parts = min(_half_parts(pixels), multiprocessors if narrow else _most_half_parts(tiles))
        if tiles > 12 and pixels < 8000:
            return 0
        channels = -(-shape.channels // 32) * 32
    else:
        most = multiprocessors if narrow else multiprocessors // 2
        few = -(-pixels // 192) if narrow else -(-pixels // 128) if pixels < 4000 else most
        parts = min(2 * multiprocessors // tiles, most, few)
        channels = shape.channels
    if parts < (2 if shape.half else 3):
        return 0
    return channels * shape.results * FLOAT32_BYTES * parts + 16


def _half_parts(pixels: int) -> int:
    """As the pixels allow: few have 1,320 each at least, many 21 times 64 at most."""
    return pixels // 1320 if pixels < 16_384 else -(-pixels // (21 * 64))


def _most_half_parts(tiles: int) -> int:
    """As multiprocessors allow: what is usual on 132."""
    return next((most for up_to, most in _HALF_PARTS if tiles <= up_to), 4)
