"""The job's optimizer, executed as CUDA would.

On CUDA, optimizers pick their multi-tensor (foreach) implementation by themselves; fake tensors are
not plain tensors, so the same choice is made here and passed explicitly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.optim import Optimizer as TorchOptimizer

from memplan.types import Optimizer, OptimizerImplementation, OptimizerType

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


def make(optimizer: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> TorchOptimizer:
    """The optimizer over these parameters. Its defaults are resolved already."""
    if optimizer.type is OptimizerType.CUSTOM:
        return _LikeParameters(parameters, optimizer.state_count)
    options: dict[str, Any] = {n: getattr(optimizer, n) for n in _OPTIONS.get(optimizer.type, ())}
    if optimizer.weight_decay is not None:
        options["weight_decay"] = optimizer.weight_decay
    implementation = resolve_implementation(optimizer)
    options["foreach"] = implementation is OptimizerImplementation.FOREACH
    if implementation is OptimizerImplementation.FUSED:
        options["fused"] = True
    return _CLASSES[optimizer.type](parameters, lr=1e-3, **options)


def resolve_implementation(optimizer: Optimizer) -> OptimizerImplementation:
    """The implementation asked for, or what torch.optim picks on CUDA."""
    if optimizer.implementation is not OptimizerImplementation.UNSPECIFIED:
        return optimizer.implementation
    single = optimizer.type in _SINGLE_BY_DEFAULT
    return OptimizerImplementation.SINGLE if single else OptimizerImplementation.FOREACH


def state_tensors(optimizer: TorchOptimizer) -> Iterator[torch.Tensor]:
    """The tensors that the optimizer keeps from step to step."""
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                yield value


class _LikeParameters(TorchOptimizer):
    """Keeps `state_count` tensors like each parameter; one temporary of its size at a time."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], state_count: int) -> None:
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
