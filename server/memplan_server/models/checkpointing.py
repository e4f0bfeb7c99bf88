"""Activation checkpointing as the model's library does it.

    enable(module, "transformers/llama")

Which layers are computed anew, and how, is the library's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from memplan_server.errors import InvalidJob, Violation
from memplan_server.models.explained import explain

__all__ = ["enable"]

_FIELD = "job.activation_checkpointing"
_METHODS = (
    "activation_checkpointing_enable",  # transformers, where it has this name
    "gradient_checkpointing_enable",  # transformers before
    "set_grad_checkpointing",  # timm
    "enable_gradient_checkpointing",  # diffusers
)


def enable(module: nn.Module, name: str) -> None:
    """Have the layers of the model called `name` compute their activations anew in backward.

    Raises `InvalidJob` where the library has no such thing for the model.
    """
    method: Callable[[], Any] | None = next(
        filter(None, (getattr(module, method, None) for method in _METHODS)), None
    )
    if method is None:
        raise InvalidJob(Violation(_FIELD, f"{name} has none of its own: leave it out."))
    try:
        method()
    except Exception as error:
        said = f"{name} has none: {explain(error, 'Leave it out.')}"
        raise InvalidJob(Violation(_FIELD, said)) from error
