"""One call of cuDNN, of which tests make others by `dataclasses.replace`."""

from __future__ import annotations

from memplan_server.timeline import Convolution

CONVOLUTION = Convolution(
    direction="wgrad",
    dtype="float32",
    itemsize=4,
    channels_last=False,
    groups=1,
    image=(64, 56, 56),
    kernel=(128, 64, 3, 3),
    result=(128, 28, 28),
    stride=(2, 2),
    dilation=(1, 1),
)
