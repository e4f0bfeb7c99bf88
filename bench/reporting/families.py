"""The kind of a model, by what its layers are. Used where a table does not say it.

Names are those of `corpus.matrix.FAMILIES` where it has one; `transformer` is any of its kinds, and
`hybrid` has convolutions and attention.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["DERIVED", "family"]

DERIVED = (
    "transformer",
    "mlp",
    "cnn",
    "grouped-cnn",
    "depthwise-cnn",
    "hybrid",
    "recurrent",
)
"""What `family` answers."""

_PROJECTIONS = ("qkv", "kv", "query", "q_proj", "in_proj_weight")
"""Attributes that tell an attention layer."""


def family(module: nn.Module, traits: Collection[str]) -> str:
    """One of `DERIVED`; `traits` are those of the model's timeline.

    A convolution whose stride is its kernel cuts an image into patches, which is a matrix product
    and makes no convolutional network.
    """
    convolutions = [m for m in module.modules() if isinstance(m, _ConvNd) and not _patches(m)]
    attention = "attention" in traits or any(
        hasattr(m, name) for m in module.modules() for name in _PROJECTIONS
    )
    if "recurrent" in traits:
        return "recurrent"
    if not convolutions:
        return "transformer" if attention else "mlp"
    if attention:
        return "hybrid"
    if any(1 < c.groups == c.in_channels for c in convolutions):
        return "depthwise-cnn"
    grouped = any(c.groups > 1 for c in convolutions)
    return "grouped-cnn" if grouped else "cnn"


def _patches(convolution: _ConvNd) -> bool:
    kernel = convolution.kernel_size
    return convolution.groups == 1 and kernel == convolution.stride and max(kernel) > 1
