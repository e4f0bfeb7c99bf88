"""A comparison as a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence

from memplan_server.timeline import Convolution
from reporting.markdown import mib, table
from workspaces.comparison import Compared

__all__ = ["describe", "rows_table", "verdict"]

NEAR_BYTES = 1 << 20
"""Workspaces that differ by less count as the same."""


def describe(convolution: Convolution) -> str:
    """`wgrad 64x56x56 * 128x64x3x3 = 128x28x28, stride 2`: image, kernel, result."""
    shapes = convolution.image, convolution.kernel, convolution.result
    image, kernel, result = ("x".join(map(str, shape)) for shape in shapes)
    parts = [f"{convolution.direction} {image} * {kernel} = {result}"]
    for name, values in (("stride", convolution.stride), ("dilation", convolution.dilation)):
        if set(values) != {1}:
            alike = len(set(values)) == 1
            parts.append(f"{name} {values[0] if alike else 'x'.join(map(str, values))}")
    if convolution.groups > 1:
        parts.append(f"{convolution.groups} groups")
    parts.append(convolution.dtype)
    if convolution.channels_last:
        parts.append("channels-last")
    return ", ".join(parts)


def rows_table(rows: Sequence[Compared]) -> str:
    """One line a call. MiB."""
    header = ["convolution", "samples", "calls", "ours", "cuDNN's first", "of ten", "measured"]
    cells = [
        [
            describe(row.call.convolution),
            str(row.call.samples),
            str(row.count),
            mib(row.ours),
            _mib(row.first),
            f"{_mib(row.least)} to {_mib(row.most)}" if row.choices else "",
            _mib(row.measured),
        ]
        for row in rows
    ]
    shown = [i for i in range(len(header)) if i < 4 or any(line[i] for line in cells)]
    return table([header[i] for i in shown], [[line[i] for i in shown] for line in cells])


def verdict(rows: Sequence[Compared]) -> str:
    """How many agree, within a MiB, with what was measured; or with each other."""
    ran = [row for row in rows if row.measured is not None]
    if not ran:
        same = sum(_near(row.ours, row.first) for row in rows)
        return f"ours is cuDNN's first choice, within a MiB, in {same} of {len(rows)}"
    ours = sum(_near(row.ours, row.measured) for row in ran)
    first = sum(_near(row.first, row.measured) for row in ran)
    return f"of {len(ran)} measured, within a MiB: ours {ours}, cuDNN's first choice {first}"


def _near(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and abs(one - other) < NEAR_BYTES


def _mib(nbytes: int | None) -> str:
    return "" if nbytes is None else mib(nbytes)
