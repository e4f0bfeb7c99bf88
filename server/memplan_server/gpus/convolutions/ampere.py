"""What cuDNN takes on Ampere, and is assumed to take on every other GPU but Hopper.

With tensor cores cuDNN computes on channels-last operands. Backward of contiguous tensors converts
its operands into a workspace first and writes its result as it is asked for; forward has kernels
that read contiguous tensors. Products of matrices, which 1x1 convolutions are, read their operands
as they lie. Nothing is converted where the tensors are channels-last already.

Found by comparing 430 public measurements of convolutional networks (A100, float32, computed in
TF32) with and without workspaces for each kind of call; cuDNN 9 may choose otherwise
(docs/convolutions.md).

Known limitations: for some shapes cuDNN prefers an algorithm that takes gigabytes (grouped and
large 3x3 convolutions at small batch sizes, mostly); its heuristics are not public and are not
modelled. Without tensor cores no workspace is counted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memplan_server.timeline import Convolution

__all__ = ["workspace"]


def workspace(convolution: Convolution) -> tuple[int, int]:
    """Bytes for each sample and bytes whatever the number of samples, with tensor cores."""
    if convolution.channels_last or _is_product(convolution):
        return 0, 0
    image = math.prod(convolution.image) * convolution.itemsize
    result = math.prod(convolution.result) * convolution.itemsize
    kernel = math.prod(convolution.kernel) * convolution.itemsize
    if convolution.direction == "wgrad":
        return image + result, kernel
    return (result, kernel) if convolution.direction == "dgrad" else (0, 0)


def _is_product(convolution: Convolution) -> bool:
    """A 1x1 convolution of every pixel is a product of matrices."""
    alone = all(n == 1 for n in (*convolution.kernel[2:], *convolution.stride))
    return alone and convolution.groups == 1
