"""What of a model's output a training loop computes the loss from.

    outputs = extract_outputs(model(inputs))      # each counts in the loss
    loss = extract_loss(model(**inputs, labels=labels))     # detection models: the sum of several

Known shapes of output: a tensor; torchvision's named tuples and dictionaries with auxiliary outputs
(GoogLeNet, Inception, segmentation), all of which count in the loss as in torchvision's own
training scripts; transformers' `ModelOutput`, of which only the logits do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

__all__ = ["extract_loss", "extract_outputs"]


def extract_outputs(output: Any) -> tuple[torch.Tensor, ...]:
    """The floating-point tensors the loss is computed from, at least one.

    Raises ValueError when there is none.
    """
    found = tuple(t for t in _tensors(_chosen(output)) if t.is_floating_point())
    if not found:
        raise ValueError(f"the model returns {type(output).__name__}, with no tensor for a loss")
    return found


def extract_loss(output: Any) -> torch.Tensor:
    """The loss in the output of a model that computes one: the sum of them where it has several.

    Raises ValueError when there is none.
    """
    if isinstance(output, Mapping) and output and "loss" not in output:
        losses = list(output.values())
        if all(isinstance(loss, torch.Tensor) and loss.dim() == 0 for loss in losses):
            total: torch.Tensor = sum(losses)
            return total
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None and isinstance(output, (tuple, list)) and output:
        loss = output[0]
    if not isinstance(loss, torch.Tensor):
        raise ValueError(f"the model returns {type(output).__name__}, with no loss in it")
    return loss if loss.dim() == 0 else loss.mean()


def _chosen(output: Any) -> Any:
    """The part of a dictionary that is for the loss: logits where it has some."""
    if not isinstance(output, Mapping):
        return output
    logits = [value for key, value in output.items() if key.endswith("logits")]
    if logits:
        return logits
    return output.get("last_hidden_state", list(output.values()))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
