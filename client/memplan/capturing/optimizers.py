"""A torch optimizer -> the Optimizer message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from memplan.errors import CaptureError
from memplan.types import Optimizer, OptimizerGroup, OptimizerImplementation, OptimizerType

__all__ = ["describe_optimizer", "groups_of"]

_TYPES: Mapping[type[torch.optim.Optimizer], OptimizerType] = {
    torch.optim.SGD: OptimizerType.SGD,
    torch.optim.Adam: OptimizerType.ADAM,
    torch.optim.AdamW: OptimizerType.ADAMW,
    torch.optim.Adagrad: OptimizerType.ADAGRAD,
    torch.optim.RMSprop: OptimizerType.RMSPROP,
    torch.optim.Adafactor: OptimizerType.ADAFACTOR,
}
_OPTIONS: Mapping[OptimizerType, tuple[str, ...]] = {
    OptimizerType.SGD: ("momentum", "nesterov"),
    OptimizerType.ADAM: ("amsgrad",),
    OptimizerType.ADAMW: ("amsgrad",),
    OptimizerType.RMSPROP: ("momentum", "centered"),
}
"""The options that change memory, by the name that they have in both."""
_UNLIKE = {
    "capturable": "an optimizer without it: its step counts are numbers of a few bytes",
    "differentiable": "an optimizer without it",
}
"""Options that memplan does not know, and what to use instead."""


def describe_optimizer(
    optimizer: torch.optim.Optimizer, *, state_count: int | None = None
) -> Optimizer:
    """What the optimizer's class, options and parameter groups mean for memory.

        memplan.describe_optimizer(torch.optim.AdamW(model.parameters(), fused=True))

    `state_count` describes a class that memplan does not know: how many tensors like the parameter
    it keeps for each. Raises `CaptureError` for such a class without it.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise CaptureError(
            f"{type(optimizer).__name__} is no torch.optim.Optimizer; pass the optimizer object."
        )
    kind = _TYPES.get(type(optimizer), OptimizerType.CUSTOM)
    if kind is OptimizerType.ADAM and optimizer.defaults.get("decoupled_weight_decay"):
        kind = OptimizerType.ADAMW
    if state_count is not None:
        kind = OptimizerType.CUSTOM
    if kind is OptimizerType.CUSTOM and state_count is None:
        known = ", ".join(sorted(cls.__name__ for cls in _TYPES))
        raise CaptureError(
            f"memplan does not know the optimizer {type(optimizer).__name__}. Say with state_count "
            f"how many tensors like the parameter it keeps for each (Lion: 1); known are {known}."
        )
    groups = tuple(_group(kind, group) for group in optimizer.param_groups)
    return Optimizer(type=kind, state_count=state_count or 0, groups=groups)


def groups_of(optimizer: torch.optim.Optimizer) -> dict[int, int]:
    """The group of each parameter, counted from 1, by the parameter's id."""
    found: dict[int, int] = {}
    for index, group in enumerate(optimizer.param_groups, start=1):
        found.update(dict.fromkeys(map(id, group["params"]), index))
    return found


def strangers(optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor]) -> int:
    """How many of the optimizer's parameters are not among these."""
    known = set(map(id, parameters))
    return sum(key not in known for key in groups_of(optimizer))


def _group(kind: OptimizerType, options: Mapping[str, Any]) -> OptimizerGroup:
    if kind is OptimizerType.CUSTOM:
        return OptimizerGroup()
    for name, remedy in _UNLIKE.items():
        if options.get(name):
            raise CaptureError(f"memplan does not know the option {name}=True; use {remedy}.")
    found: dict[str, Any] = {name: options[name] for name in _OPTIONS.get(kind, ())}
    return OptimizerGroup(
        implementation=_implementation(options),
        weight_decay=float(options.get("weight_decay", 0.0)),
        **found,
    )


def _implementation(options: Mapping[str, Any]) -> OptimizerImplementation:
    if options.get("fused"):
        return OptimizerImplementation.FUSED
    if options.get("foreach") is None:
        return OptimizerImplementation.UNSPECIFIED
    return OptimizerImplementation.FOREACH if options["foreach"] else OptimizerImplementation.SINGLE
