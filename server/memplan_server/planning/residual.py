"""What can be wrong about an estimate, and how far off it a measurement is as a share of that.

The tensors of a job are known one by one; how the allocator packs them is not, since a small
difference early in a run changes everything after it. So what it holds beyond the tensors is what
can be wrong, and a share of everything for what is missing among the tensors.
"""

from __future__ import annotations

__all__ = ["residual", "unsure_bytes"]

_SHARE = 0.1
"""Of the reserved bytes. It matters little: from 0.05 to 0.2 the median height of upper bounds, for
models that were held out (`bench/calibrate.py`), stayed between 5.8 and 6.1 %."""


def unsure_bytes(allocated_bytes: int, reserved_bytes: int) -> int:
    """Bytes that can be wrong, from the peaks that are expected.

    `allocated_bytes` is the peak of the tensors' rounded sizes
    (`allocator.Unlimited.peak_allocated_bytes`).
    """
    return max(0, reserved_bytes - allocated_bytes) + int(_SHARE * reserved_bytes)


def residual(off_bytes: int, slack_bytes: int, unsure_bytes: int) -> tuple[float, float]:
    """How far a measurement is above its estimate, and how far below; one of them is 0.

    Beyond the slack, as shares of the unsure bytes. `off_bytes` is measured less estimated.
    """
    whole = max(1, unsure_bytes)
    return max(0, off_bytes - slack_bytes) / whole, max(0, -off_bytes - slack_bytes) / whole
