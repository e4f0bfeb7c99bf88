"""Values for a model that is run for real, and for its batches.

Which values they are takes no memory, with two exceptions that are kept clear of: gradients that
overflow, for which the gradient scaler skips the optimizer's step, and indices beyond a table.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from memplan.types import GraphInput, InputTensor
from memplan_server.models import BuiltModel
from memplan_server.training.stated import batch_of

__all__ = ["RandomData", "fill_parameters"]

_ONES = 0
"""Instead of a bound: every value is 1."""
_POOL_ELEMENTS = 1 << 22
_SEED = 20_240_229
_TOKENS = ("", "input_ids", "decoder_input_ids")
_LANGUAGE_HEADS = ("LMHead", "CausalLM", "MaskedLM", "ConditionalGeneration", "PreTraining")


def fill_parameters(module: nn.Module) -> None:
    """Give every parameter on the host values that keep activations and gradients small, in place.

    Matrices and kernels: uniform, within 1 / sqrt(fan-in); biases: 0; scales: 1.
    """
    pool = torch.rand(_POOL_ELEMENTS, generator=torch.Generator().manual_seed(_SEED)) * 2 - 1
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(0.0 if name.rpartition(".")[2].startswith("bias") else 1.0)
            else:
                _repeat(pool, parameter)


def _repeat(pool: torch.Tensor, parameter: torch.Tensor) -> None:
    """Drawing hundreds of millions of numbers takes seconds; repeating some takes none."""
    bound = 1 / math.sqrt(max(1, parameter[0].numel()))
    scaled = (pool * bound).to(parameter.dtype)
    flat = parameter.as_strided((parameter.numel(),), (1,))
    for piece in flat.split(_POOL_ELEMENTS):
        piece.copy_(scaled[: piece.numel()])


class RandomData:
    """`Data` of a training loop: the same random batch at every step, copied from the host."""

    def __init__(self, built: BuiltModel) -> None:
        self._module = built.module
        self._built = built
        self._stated = built.stated
        self._labels = {spec.name for spec in built.labels}
        self._hosts: dict[Any, torch.Tensor] = {}
        self._generator = torch.Generator().manual_seed(_SEED)

    def fill_input(self, spec: InputTensor | GraphInput, tensor: torch.Tensor) -> None:
        """Indices below what the model has rows or classes for; masks of ones; else numbers."""
        label = spec.name in self._labels
        if spec.name in self._stated and (self._built.per_sample or not label):
            self._copy((spec.name, spec.shape), tensor, lambda: spec)
            return
        self._copy((spec.name, spec.shape), tensor, lambda: self._bound(spec, label))

    def fill_target(self, tensor: torch.Tensor, classes: int | None) -> None:
        """Class indices below `classes`, or numbers."""
        self._copy(("", tuple(tensor.shape), classes), tensor, lambda: classes or 1)

    def _copy(self, key: Any, tensor: torch.Tensor, bound: Any) -> None:
        # Host tensors are the script's, not the step's: those who watch the step do not see them.
        with _disable_current_modes():
            key = (key, tensor.dtype, tuple(tensor.shape), tensor.stride())
            if key not in self._hosts:
                self._hosts[key] = self._host(tensor, bound())
            host = self._hosts[key]
        tensor.copy_(host)

    def _as_stated(self, spec: InputTensor, tensor: torch.Tensor) -> torch.Tensor:
        """The stated values, with random ones where any will do."""
        batch_size = tensor.shape[0]
        if spec.name in self._built.flattened:
            batch_size //= spec.shape[0]
        values = batch_of(self._built, spec, batch_size)
        assert values is not None
        ordinary = self._stated[spec.name].ordinary
        if ordinary is not None and len(ordinary):
            drawn = torch.empty_like(values)
            drawn.random_(ordinary.start, ordinary.stop, generator=self._generator)
            values = torch.where(values == ordinary.start, drawn, values)
        return values.to(tensor.dtype)

    def _host(self, tensor: torch.Tensor, bound: Any) -> torch.Tensor:
        if isinstance(bound, InputTensor):
            return self._as_stated(bound, tensor)
        host = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
        if tensor.is_floating_point():
            return host.uniform_(0, 1, generator=self._generator)
        if bound == _ONES or tensor.dtype in (torch.bool, torch.uint8):
            return host.fill_(1)
        return host.random_(0, bound, generator=self._generator)

    def _bound(self, spec: InputTensor | GraphInput, label: bool) -> int:
        """Index values are below this; 1 (only index 0) where nothing is known."""
        if isinstance(spec, GraphInput):
            return 1
        config = getattr(self._module, "config", None)
        if spec.name in ("attention_mask", "decoder_attention_mask"):
            return _ONES
        if label:
            return self._label_bound(spec, config)
        if spec.name in _TOKENS:
            return self._vocabulary(config)
        return 1

    def _label_bound(self, spec: InputTensor, config: Any) -> int:
        if spec.name in ("start_positions", "end_positions"):
            return 1
        if any(head in type(self._module).__name__ for head in _LANGUAGE_HEADS):
            return self._vocabulary(config)
        return int(getattr(config, "num_labels", 1))

    def _vocabulary(self, config: Any) -> int:
        tables = [m for m in self._module.modules() if isinstance(m, nn.Embedding)]
        known = getattr(config, "vocab_size", None)
        if isinstance(known, int):
            return known
        return tables[0].num_embeddings if tables else 1
