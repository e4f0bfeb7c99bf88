"""A comparison as a terminal shows it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from memplan_server.timeline import Convolution
from reporting.markdown import mib, table
from workspaces.comparison import Call, Compared

__all__ = ["describe", "rows_table", "shares", "verdict"]

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


def shares(rows: Sequence[Compared]) -> str:
    """By layout and direction: how many first choices take a MiB or more, and the median share of
    image, result and kernel that it is."""
    kinds: dict[str, list[Compared]] = {}
    for row in rows:
        convolution = row.call.convolution
        layout = "channels-last " if convolution.channels_last else ""
        kinds.setdefault(f"{layout}{convolution.direction}", []).append(row)
    said = []
    for kind, asked in sorted(kinds.items()):
        some = [n / _operand_bytes(r.call) for r in asked if (n := r.first or 0) >= NEAR_BYTES]
        median = f" ({statistics.median(some):.2f} of operands)" if some else ""
        said.append(f"{kind} {len(some)} of {len(asked)}{median}")
    return "first choices of a MiB or more: " + ", ".join(said)


def _operand_bytes(call: Call) -> int:
    convolution = call.convolution
    each = math.prod(convolution.image) + math.prod(convolution.result)
    return convolution.itemsize * (call.samples * each + math.prod(convolution.kernel))


def _near(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and abs(one - other) < NEAR_BYTES


def _mib(nbytes: int | None) -> str:
    return "" if nbytes is None else mib(nbytes)
