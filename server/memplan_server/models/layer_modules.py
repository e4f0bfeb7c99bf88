"""The modules of a layer stack that PyTorch has no class for, and the tables of those it has."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from memplan.types import (
    ActivationType,
    PoolingType,
    RecurrentType,
    SequencePoolingType,
)

__all__ = [
    "ACTIVATIONS",
    "BATCH_NORMS",
    "CONVOLUTIONS",
    "INPLACE",
    "INSTANCE_NORMS",
    "POOLINGS",
    "RECURRENT",
    "TRANSPOSED_CONVOLUTIONS",
    "Recurrence",
    "Reshaped",
    "ResidualBlock",
    "SelfAttention",
    "SequencePooled",
    "Stack",
]

ACTIVATIONS: dict[ActivationType, type[nn.Module]] = {
    ActivationType.RELU: nn.ReLU,
    ActivationType.GELU: nn.GELU,
    ActivationType.SILU: nn.SiLU,
    ActivationType.TANH: nn.Tanh,
    ActivationType.SIGMOID: nn.Sigmoid,
    ActivationType.LEAKY_RELU: nn.LeakyReLU,
    ActivationType.ELU: nn.ELU,
    ActivationType.MISH: nn.Mish,
    ActivationType.HARDSWISH: nn.Hardswish,
    ActivationType.SOFTPLUS: nn.Softplus,
    ActivationType.SOFTMAX: nn.Softmax,
}
INPLACE = (nn.ReLU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.Mish, nn.Hardswish)
"""Activations that can work in place."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
POOLINGS: dict[PoolingType, tuple[type[nn.Module], ...]] = {
    PoolingType.MAX: (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    PoolingType.AVERAGE: (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    PoolingType.ADAPTIVE_MAX: (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    PoolingType.ADAPTIVE_AVERAGE: (
        nn.AdaptiveAvgPool1d,
        nn.AdaptiveAvgPool2d,
        nn.AdaptiveAvgPool3d,
    ),
}
"""Each for one, two and three spatial dimensions."""

RECURRENT: dict[RecurrentType, type[nn.RNNBase]] = {
    RecurrentType.LSTM: nn.LSTM,
    RecurrentType.GRU: nn.GRU,
    RecurrentType.RNN: nn.RNN,
}


class Stack(nn.Module):
    """Modules applied one after the other, under names that may have dots: `3.linear`.

    Like nn.Sequential, it lets go of each result as soon as the next one is there.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self._in_order: list[nn.Module] = []
        for name, module in named:
            self._in_order.append(module)
            *folders, last = name.split(".")
            parent: nn.Module = self
            for folder in folders:
                if folder not in parent._modules:
                    parent.add_module(folder, _Folder())
                parent = parent._modules[folder] or parent
            parent.add_module(last, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self._in_order:
            x = module(x)
        return x


class _Folder(nn.Module):
    """Holds modules under a name."""


class ResidualBlock(nn.Module):
    """y = body(x) + shortcut(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(x) + self.shortcut(x)
        return out


class SelfAttention(nn.Module):
    """nn.MultiheadAttention of a sequence with itself, without returning the weights."""

    def __init__(self, features: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(
            features, heads, dropout=dropout, bias=bias, batch_first=True
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.attention(x, x, x, need_weights=False)[0]
        return out


class Recurrence(nn.Module):
    """The output sequence of an LSTM, GRU or RNN."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)[0]
        return out


class SequencePooled(nn.Module):
    """One vector out of a sequence."""

    def __init__(self, kind: SequencePoolingType) -> None:
        super().__init__()
        self._kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self._kind is SequencePoolingType.FIRST:
            return x[:, 0]
        return x[:, -1] if self._kind is SequencePoolingType.LAST else x.mean(1)


class Reshaped(nn.Module):
    """Everything but the batch dimension in another shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], *self._shape)
