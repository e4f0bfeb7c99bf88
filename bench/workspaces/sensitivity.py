"""How far cuDNN's answers depend on what it is told about a GPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workspaces.backend import Library
from workspaces.comparison import Call
from workspaces.heuristics import Choice, Heuristics

__all__ = ["Changed", "sensitivity"]

OTHER_VALUES: Mapping[str, Any] = {"driverVer": 13000, "deviceName": "another"}
"""Instead of half of it."""

_FIXED = (
    "deviceVer",
    "pciDeviceId",
    "cudaDeviceId",
    "isTccDriver",
    "warpSize",
    "supportCoopLaunch",
)
"""What is not changed: the architecture itself, and what halves to nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """What another value of one figure changes."""

    figure: str
    value: Any
    first: int
    """Calls whose first proposal takes another workspace."""
    most: int
    """Calls whose largest proposal does."""
    calls: int
    """All of them."""


def sensitivity(
    library: Library, gpu: Mapping[str, Any], calls: Collection[Call]
) -> Iterator[Changed]:
    """Ask again with half of each figure of the description, one at a time."""
    usual = _answers(library, gpu, calls)
    for figure, value in gpu.items():
        if figure in _FIXED or isinstance(value, list):
            continue
        other = OTHER_VALUES[figure] if figure in OTHER_VALUES else value // 2
        found = _answers(library, {**gpu, figure: other}, calls)
        pairs = list(zip(usual, found, strict=True))
        yield Changed(
            figure=figure,
            value=other,
            first=sum(a[0].workspace_bytes != b[0].workspace_bytes for a, b in pairs),
            most=sum(_most(a) != _most(b) for a, b in pairs),
            calls=len(pairs),
        )


def _answers(
    library: Library, gpu: Mapping[str, Any], calls: Collection[Call]
) -> list[tuple[Choice, ...]]:
    heuristics = Heuristics(library, gpu)
    return [heuristics.choices(call.convolution, call.samples) for call in calls]


def _most(choices: tuple[Choice, ...]) -> int:
    return max(choice.workspace_bytes for choice in choices)
