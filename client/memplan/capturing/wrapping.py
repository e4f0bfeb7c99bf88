"""The module with its loss, as one module from tensors to tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import nn

from memplan.capturing.batches import Batch
from memplan.errors import CaptureError

__all__ = ["LossFunction", "Returned", "Step"]

LossFunction = Callable[..., torch.Tensor]
"""(outputs, *targets) -> a tensor with one element."""

SUMMED = "the loss is the sum of everything that the model returns: no other was given"


@dataclass(eq=False)
class Returned:
    """What the wrapped module returned when it was executed last."""

    names: tuple[str, ...] = ()
    """Names of its output tensors, in order."""
    has_loss: bool = False
    assumptions: dict[str, None] = field(default_factory=dict)

    def assume(self, sentence: str) -> None:
        """State an assumption, once."""
        self.assumptions[sentence] = None


class Step(nn.Module):
    """forward(*tensors) -> [loss, *outputs], or the outputs alone."""

    def __init__(
        self, module: nn.Module, batch: Batch, loss: LossFunction | None, *, outputs_only: bool
    ) -> None:
        """`outputs_only`: there is to be no loss, whatever the module returns."""
        super().__init__()
        self.module = module
        self.loss_function = loss
        self._batch = batch
        self._outputs_only = outputs_only
        self.returned = Returned()  # kept as it is: torch.export undoes changes of lists

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Call the module and its loss as the training loop does."""
        args, kwargs, targets = self._batch.unflatten(tensors)
        outputs = self.module(*args, **kwargs)
        found = list(_tensors(outputs, ""))
        returned = self.returned
        returned.names = tuple(name for name, _ in found)
        loss = None if self._outputs_only else self._loss(outputs, targets, returned)
        if loss is None:
            return [tensor for _, tensor in found]
        if loss.numel() != 1:
            raise CaptureError(f"The loss must have one element, not shape {[*loss.shape]}.")
        returned.has_loss = True
        return [loss, *(tensor for _, tensor in found)]

    def _loss(self, outputs: Any, targets: Any, returned: Returned) -> torch.Tensor:
        if self.loss_function is not None:
            return self.loss_function(outputs, *targets)
        own = _own_loss(outputs)
        if own is not None:
            return own
        returned.assume(SUMMED)
        parts = [t.sum() for _, t in _tensors(outputs, "") if t.is_floating_point()]
        if not parts:
            raise CaptureError("The model returns no tensor to compute a loss from; give a loss.")
        return sum(parts[1:], start=parts[0])


def _own_loss(outputs: Any) -> torch.Tensor | None:
    """The loss that the module computes itself."""
    if isinstance(outputs, torch.Tensor):
        return outputs if outputs.dim() == 0 else None
    found = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    return found if isinstance(found, torch.Tensor) else None


def _tensors(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in an output, by its key or attribute; unnamed where it has none."""
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    inner: Iterator[tuple[Any, Any]]
    if isinstance(value, Mapping):
        inner = iter(value.items())
    elif is_dataclass(value):
        inner = ((f.name, getattr(value, f.name)) for f in fields(value))
    elif isinstance(value, (list, tuple)):
        inner = ((f"{name}.{index}" if name else "", item) for index, item in enumerate(value))
        for path, item in inner:
            yield from _tensors(item, path)
        return
    else:
        return
    for key, item in inner:
        yield from _tensors(item, f"{name}.{key}" if name else str(key))
