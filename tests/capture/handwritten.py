"""Forty modules as people write them. All but the last few take x [batch, 8]."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Of(nn.Module):
    """A module whose forward is a function of it and its inputs."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def linear(features: int = 8) -> nn.Linear:
    return nn.Linear(8, features)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = linear(), linear()
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()
        self.register_buffer("count", torch.zeros(8))
        self.cache: Tensor | None = None
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.count.add_(1)  # type: ignore[operator]
        self.cache = self.layer(x)
        self.seen.append(self.cache.mean())
        return self.cache


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = linear(4)
        self.experts = nn.ModuleList(linear() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.gate(x).softmax(-1).topk(2)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            row, place = torch.where(chosen == index)
            out[row] += expert(x[row]) * weight[row, place, None]
        return out


class DenseExperts(Experts):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.gate(x).softmax(-1)
        parts = [weight[:, i, None] * expert(x) for i, expert in enumerate(self.experts)]
        return torch.stack(parts).sum(0)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.cells = kind(8, 8, num_layers=2, batch_first=True)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.cells(self.table(tokens))[0]
        return found


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for _ in range(3):
            state = self.cell(x, state)
        assert state is not None
        return state[0]


def autocasting(m: Any, x: Tensor) -> Tensor:
    with torch.autocast("cuda", enabled=False):
        y = m.a(x)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        y = m.a(y)
    with torch.no_grad():
        target = m.a(x)
    return F.mse_loss(y, target)


def penalised(m: Any, x: Tensor) -> Tensor:
    x = x.requires_grad_()
    y = m.a(x)
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return y.mean() + grad.pow(2).mean()


def diffused(m: Any, x: Tensor) -> Tensor:
    noise = torch.randn_like(x)
    time = torch.randint(0, 1000, (x.shape[0],), device=x.device)
    angles = time[:, None] * torch.exp(torch.arange(4).float() * -0.1).to(x.device)
    embedded = torch.cat([angles.sin(), angles.cos()], dim=-1)
    return F.mse_loss(m.a(x + noise) + embedded, noise)


def in_place(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    y[:, :2] = 0
    y.add_(1).mul_(0.5)
    return F.relu_(y)


def on_shapes(m: Any, x: Tensor) -> Tensor:
    if x.shape[-1] > 4 and x.dim() == 2:
        x = x.view(x.size(0), 2, -1).flatten(1)
    return m.a(x)


def attention(m: Any, x: Tensor) -> Tensor:
    mask = torch.ones(4, 4, dtype=torch.bool, device=x.device).tril()
    heads = m.a(x).view(-1, 4, 2).unsqueeze(1)
    return F.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)


def unfused_attention(m: Any, x: Tensor) -> Tensor:
    """Heads of one number, which no fused kernel of a GPU takes; CPUs have one with another layout,
    where `contiguous` does nothing."""
    heads = m.a(x).view(-1, 4, 2, 1).transpose(1, 2)
    attended = F.scaled_dot_product_attention(heads, heads, heads)
    return attended.transpose(1, 2).contiguous().view(-1, 8)


MODULES: dict[str, nn.Module] = {
    "branches": Of(lambda m, x: m.a(x) + m.b(x).tanh(), a=linear(), b=linear()),
    "shared weights": Shared(),
    "a module called twice": Of(lambda m, x: m.a(m.a(x).relu()), a=linear()),
    "in-place operators": Of(in_place, a=linear()),
    "in-place modules": nn.Sequential(linear(), nn.ReLU(inplace=True), nn.Dropout(0.5)),
    "a custom autograd function": Of(lambda m, x: Square.apply(m.a(x)), a=linear()),
    "checkpointing": Of(lambda m, x: checkpoint(m.a, x, use_reentrant=False), a=linear()),
    "reentrant checkpointing": Of(lambda m, x: checkpoint(m.a, x, use_reentrant=True), a=linear()),
    "control flow on shapes": Of(on_shapes, a=linear()),
    "a condition on values": Of(lambda m, x: m.a(x) if x.sum() > 0 else m.a(-x), a=linear()),
    "nested containers": nn.Sequential(
        nn.ModuleDict({"a": nn.Sequential(linear(), nn.Tanh())})["a"], nn.Sequential(linear())
    ),
    "a module list": Of(lambda m, x: m.a[1](m.a[0](x)), a=nn.ModuleList([linear(), linear()])),
    "an LSTM": Recurrent(nn.LSTM),
    "a GRU": Recurrent(nn.GRU),
    "an RNN": Recurrent(nn.RNN),
    "cells by hand": ByHand(),
    "several outputs": Of(lambda m, x: (m.a(x), {"b": m.b(x)}, None, 3), a=linear(), b=linear()),
    "a dictionary of outputs": Of(lambda m, x: {"a": m.a(x), "logits": m.a(x)}, a=linear()),
    "its own loss": Of(lambda m, x: m.a(x).mean(), a=linear()),
    "experts with a router": Experts(),
    "experts that all work": DenseExperts(),
    "batch normalisation": nn.Sequential(linear(), nn.BatchNorm1d(8), nn.ReLU()),
    "layer normalisation": nn.Sequential(linear(), nn.LayerNorm(8), nn.GELU()),
    "group normalisation": nn.Sequential(linear(), nn.GroupNorm(2, 8), nn.SiLU()),
    "a convolution": nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 3, 3), nn.Flatten()),
    "a transformer": nn.Sequential(
        nn.Unflatten(1, (2, 4)), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    ),
    "attention with a mask": Of(attention, a=linear()),
    "attention without a fused kernel": Of(unfused_attention, a=linear()),
    "buffers and caches": Buffered(),
    "autocast of its own": Of(autocasting, a=linear()),
    "a gradient penalty": Of(penalised, a=linear(1)),
    "diffusion": Of(diffused, a=linear()),
    "a mask as an index": Of(lambda m, x: (y := m.a(x))[y > 0].sum(), a=linear()),
    "an FFT": Of(lambda m, x: torch.fft.irfft(torch.fft.rfft(m.a(x))), a=linear()),
    "einsum": Of(lambda m, x: torch.einsum("bi,ij->bj", x, m.a.weight), a=linear()),
    "parametrised weights": nn.utils.parametrizations.weight_norm(linear()),
    "a spectral norm": nn.utils.parametrizations.spectral_norm(linear()),
    "frozen layers": nn.Sequential(linear().requires_grad_(False), linear()),
    "mixed types": Of(
        lambda m, x: m.b(m.a(x).bfloat16()).float(), a=linear(), b=linear().bfloat16()
    ),
    "pairs of samples": Of(lambda m, x: m.a(x) @ m.a(x).T, a=linear()),
    "halves of a batch": Of(lambda m, x: torch.mul(*m.a(x).split(x.shape[0] // 2)), a=linear()),
    "another way for large batches": Of(
        lambda m, x: m.a(x if x.shape[0] < 64 else x.clone()), a=linear()
    ),
    "a loop over samples": Of(
        lambda m, x: torch.stack([m.a(x[i]) for i in range(x.shape[0])]), a=linear()
    ),
}

FAILURES: dict[str, tuple[nn.Module, str]] = {
    "a wrong shape": (Of(lambda m, x: m.a(x.view(-1, 3)), a=linear()), "view(-1, 3)"),
    "NumPy": (Of(lambda m, x: m.a(x).detach().numpy(), a=linear()), "Compute with tensors"),
    "a list of numbers": (Of(lambda m, x: m.a(x).tolist(), a=linear()), "Compute with tensors"),
    "another device": (
        Of(lambda m, x: m.a(x) + torch.zeros(8, device="cuda"), a=linear()),
        "device=x.device",
    ),
    "unlike types": (Of(lambda m, x: m.a(x.double()), a=linear()), "float64 and float32"),
    "no output": (Of(lambda m, x: None, a=linear()), "give a loss"),
}
"""Modules that cannot be captured, and a part of what is said."""
