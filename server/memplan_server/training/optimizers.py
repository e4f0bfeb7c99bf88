"""The job's optimizer, executed as CUDA would.

On CUDA, optimizers pick their multi-tensor (foreach) implementation by themselves; fake tensors are
not plain tensors, so the same choice is made here and passed explicitly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.optim import Optimizer as TorchOptimizer

from memplan.types import Optimizer, OptimizerGroup, OptimizerImplementation, OptimizerType
from memplan_server.errors import InvalidJob, Violation

__all__ = ["make", "state_tensors"]

_CLASSES: dict[OptimizerType, Callable[..., TorchOptimizer]] = {
    OptimizerType.SGD: torch.optim.SGD,
    OptimizerType.ADAM: torch.optim.Adam,
    OptimizerType.ADAMW: torch.optim.AdamW,
    OptimizerType.ADAGRAD: torch.optim.Adagrad,
    OptimizerType.RMSPROP: torch.optim.RMSprop,
    OptimizerType.ADAFACTOR: torch.optim.Adafactor,
}

_OPTIONS = {
    OptimizerType.SGD: ("momentum", "nesterov"),
    OptimizerType.ADAM: ("amsgrad",),
    OptimizerType.ADAMW: ("amsgrad",),
    OptimizerType.RMSPROP: ("momentum", "centered"),
}
"""The fields of `Optimizer` that each class takes by the same name."""

_SINGLE_BY_DEFAULT = (OptimizerType.ADAFACTOR, OptimizerType.CUSTOM)
"""torch.optim.Adafactor loops over parameters unless told otherwise."""


def make(
    optimizer: Optimizer,
    parameters: Iterable[tuple[str, torch.nn.Parameter]],
    membership: Mapping[str, int],
) -> TorchOptimizer:
    """The optimizer over these parameters with their names. Its defaults are resolved already.

    `membership` says which of the optimizer's groups, counted from 1, a parameter is in; 0: none.
    Raises `InvalidJob` when no group has a parameter that is trained.
    """
    if not optimizer.groups:
        everything = {"params": [p for _, p in parameters], **_options(optimizer, optimizer)}
        return _made(optimizer, [everything])
    members: dict[int, list[torch.nn.Parameter]] = {}
    for name, parameter in parameters:
        members.setdefault(membership.get(name, 0), []).append(parameter)
    members.pop(0, None)
    if not members:
        said = "No parameter that is trained belongs to a group of the optimizer."
        raise InvalidJob(Violation("job.optimizer.groups", said))
    groups = [
        {"params": members[number], **_options(optimizer, optimizer.groups[number - 1])}
        for number in sorted(members)
    ]
    return _made(optimizer, groups)


def _made(optimizer: Optimizer, groups: list[dict[str, Any]]) -> TorchOptimizer:
    if optimizer.type is OptimizerType.CUSTOM:
        members = [{"params": group["params"]} for group in groups]
        return _LikeParameters(members, optimizer.state_count)
    return _CLASSES[optimizer.type](groups, lr=1e-3)


def _options(optimizer: Optimizer, given: Optimizer | OptimizerGroup) -> dict[str, Any]:
    """What the class is told about one group."""
    options: dict[str, Any] = {n: getattr(given, n) for n in _OPTIONS.get(optimizer.type, ())}
    if given.weight_decay is not None:
        options["weight_decay"] = given.weight_decay
    implementation = resolve_implementation(optimizer.type, given.implementation)
    options["foreach"] = implementation is OptimizerImplementation.FOREACH
    if implementation is OptimizerImplementation.FUSED:
        options["fused"] = True
    return options


def resolve_implementation(
    kind: OptimizerType, given: OptimizerImplementation
) -> OptimizerImplementation:
    """The implementation asked for, or what torch.optim picks on CUDA."""
    if given is not OptimizerImplementation.UNSPECIFIED:
        return given
    single = kind in _SINGLE_BY_DEFAULT
    return OptimizerImplementation.SINGLE if single else OptimizerImplementation.FOREACH


def state_tensors(optimizer: TorchOptimizer) -> Iterator[torch.Tensor]:
    """The tensors that the optimizer keeps from step to step."""
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                yield value


class _LikeParameters(TorchOptimizer):
    """Keeps `state_count` tensors like each parameter; one temporary of its size at a time."""

    def __init__(self, parameters: Iterable[dict[str, Any]], state_count: int) -> None:
        super().__init__(parameters, {"state_count": state_count})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move each parameter and its states in place."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                for index in range(group["state_count"]):
                    key = f"state_{index}"
                    if key not in state:
                        state[key] = torch.zeros_like(parameter)
                    state[key].lerp_(parameter.grad, 0.1)
                update = parameter.grad.clone()
                parameter.add_(update.sign_(), alpha=-1e-3)
