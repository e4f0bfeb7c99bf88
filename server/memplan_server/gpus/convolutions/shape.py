"""A convolution in the numbers that rules for workspaces are about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memplan_server.timeline import Convolution

__all__ = ["FLOAT32_BYTES", "GROUP", "Shape"]

FLOAT32_BYTES = 4
GROUP = 32
"""Channels of one group that tensor cores work on at a time."""

_VECTOR_BYTES = 16
"""What a thread loads at a time, so that channels are filled up to it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of one convolution. Bytes are those of channels-last copies."""

    convolution: Convolution
    whole_groups: Mapping[tuple[bool, str], int]
    """Up to so many groups their channels are not filled up, by half precision and direction."""

    @property
    def direction(self) -> str:
        """As in `Convolution`."""
        return self.convolution.direction

    @property
    def channels(self) -> int:
        """Of the image, in one group."""
        return self.convolution.image[0] // self.convolution.groups

    @property
    def results(self) -> int:
        """Channels of the result, in one group."""
        return self.convolution.result[0] // self.convolution.groups

    @property
    def taps(self) -> int:
        """Elements of the kernel's window."""
        return math.prod(self.convolution.kernel[2:])

    @property
    def pixels(self) -> int:
        """Of the image."""
        return math.prod(self.convolution.image[1:])

    @property
    def dilation(self) -> int:
        """The largest."""
        return max(self.convolution.dilation)

    @property
    def half(self) -> bool:
        """Two bytes an element."""
        return self.convolution.itemsize < FLOAT32_BYTES

    @property
    def strided(self) -> bool:
        """Some pixels are left out."""
        return any(n > 1 for n in self.convolution.stride)

    @property
    def product(self) -> bool:
        """A 1x1 convolution of every pixel is a product of matrices for each sample."""
        return self.taps == 1 and not self.strided and self.convolution.groups == 1

    @property
    def depthwise(self) -> bool:
        """A group for each channel of the image."""
        return self.convolution.groups > 1 and self.channels == 1

    @property
    def summed(self) -> int:
        """Products that are summed up for one element of the result."""
        return self.channels * self.taps

    @property
    def aligned(self) -> bool:
        """No channels have to be filled up."""
        return all(self.filled(n) == n for n in (self.channels, self.results))

    def filled(self, channels: int) -> int:
        """Channels that one group has in a copy."""
        if self.convolution.groups == 1:
            step = self._stem_step if self._stem else _VECTOR_BYTES // self.convolution.itemsize
        elif self._whole:
            step = 1
        elif channels <= GROUP:
            return 1 << (channels - 1).bit_length()
        else:
            step = GROUP
        return -(-channels // step) * step

    @property
    def _stem(self) -> bool:
        """For the first layer of a ResNet, 7x7 with a stride of 2, there are kernels of its own."""
        return self.summed == 3 * 7 * 7 and set(self.convolution.stride) == {2}

    @property
    def _stem_step(self) -> int:
        return 1 if self.direction == "fprop" and not self.half else 4

    @property
    def _whole(self) -> bool:
        convolution = self.convolution
        if convolution.groups > self.whole_groups[self.half, self.direction]:
            return False
        if self.half or self.direction == "wgrad":
            return True
        return self.strided == (self.direction == "fprop") and not convolution.channels_last

    @property
    def image(self) -> int:
        """Bytes of a sample's image."""
        return self._bytes(self.filled(self.channels) * self.pixels)

    @property
    def result(self) -> int:
        """Bytes of a sample's result."""
        pixels = math.prod(self.convolution.result[1:])
        return self._bytes(self.filled(self.results) * pixels)

    @property
    def kernel(self) -> int:
        """Bytes of the kernel; none where it is 1x1, which lies the same in both layouts."""
        if self.taps == 1 and self.aligned:
            return 0
        return self._bytes(self.filled(self.channels) * self.filled(self.results) * self.taps)

    @property
    def sums(self) -> int:
        """Bytes of a kernel's gradient in float32."""
        return math.prod(self.convolution.kernel) * FLOAT32_BYTES

    def _bytes(self, elements_of_a_group: int) -> int:
        return elements_of_a_group * self.convolution.groups * self.convolution.itemsize
