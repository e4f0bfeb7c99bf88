"""LSTM, GRU and RNN as one cuDNN call, for the simulated GPU.

A new backend gets PyTorch's loop of one cell a time step; CUDA gets `_cudnn_rnn`, which keeps the
output, the last states and one reserve. Source: aten/src/ATen/native/cudnn/RNN.cpp.

Known limitations: the size of the reserve is cuDNN's own matter; it is modelled as the gates and
the states that backward needs, for each layer, direction, time step and sample. Packed sequences
are not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from memplan_server.simulate import DEVICE_TYPE
from memplan_server.simulate.autocast import cast

__all__ = ["RESERVE_VALUES", "register"]

RESERVE_VALUES = {"lstm": 6, "gru": 5, "rnn_tanh": 2, "rnn_relu": 2}
"""Values of hidden size kept for each time step: four gates, cell and output for an LSTM; three
gates, the candidate's recurrent part and output for a GRU; output and input for an RNN."""

_libraries: list[torch.library.Library] = []  # a Library undoes its registrations when collected
_AUTOCAST_KEY = "AutocastPrivateUse1"
_AUTOCAST = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _AUTOCAST_KEY))


def register() -> None:
    """Register the kernels; once a process."""
    library = torch.library.Library("aten", "IMPL")
    for name in RESERVE_VALUES:
        library.impl(f"{name}.input", _kernel(name), "AutogradPrivateUse1")
        library.impl(f"{name}.input", _autocast_kernel(name), _AUTOCAST_KEY)
    _libraries.append(library)


def _autocast_kernel(name: str) -> Callable[..., Any]:
    """Autocast for cuDNN RNNs: input and states are cast, weights are copied into one flat buffer.

    Source: `_cudnn_rnn_cast_reflatten` in aten/src/ATen/cudnn/AutocastRNN.cpp.
    """
    op = getattr(torch.ops.aten, name).input

    def kernel(input: torch.Tensor, hx: Any, params: Sequence[torch.Tensor], *rest: Any) -> Any:
        dtype = torch.get_autocast_dtype(DEVICE_TYPE)
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            flat = torch.cat([p.reshape(-1) for p in params]).to(dtype)
            sizes = [p.numel() for p in params]
            low = [c.view(p.shape) for c, p in zip(flat.split(sizes), params, strict=True)]
            return op(cast(input, dtype), cast(hx, dtype), low, *rest)

    return kernel


def _kernel(name: str) -> Callable[..., Any]:
    def kernel(
        input: torch.Tensor,
        hx: Any,
        params: Sequence[torch.Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        states = tuple(hx) if isinstance(hx, (list, tuple)) else (hx,)
        directions = 2 if bidirectional else 1
        width = states[0].size(-1) * directions
        values = RESERVE_VALUES[name] * num_layers
        run: Callable[..., Any] = _CudnnRnn.apply
        return run(input, len(states), width, values, *states, *params)

    return kernel


class _CudnnRnn(torch.autograd.Function):
    """Allocates what `_cudnn_rnn` and `_cudnn_rnn_backward` do."""

    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, states: int, width: int, values: int, *rest: Any
    ) -> Any:
        steps_and_batch = input.shape[:-1]
        output = input.new_empty(*steps_and_batch, width)
        last = tuple(torch.empty_like(state) for state in rest[:states])
        reserve = input.new_empty(math.prod(steps_and_batch) * width * values)
        ctx.states, ctx.sizes = states, [p.shape for p in rest[states:]]
        ctx.save_for_backward(input, output, reserve, *rest)
        return (output, *last)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        input, _, _, *rest = ctx.saved_tensors
        states, params = rest[: ctx.states], rest[ctx.states :]
        grad_input = torch.empty_like(input)
        grad_states = tuple(torch.empty_like(state) for state in states)
        flat = params[0].new_empty(sum(p.numel() for p in params))
        pieces = flat.split([p.numel() for p in params])
        grad_params = tuple(g.view(p.shape) for g, p in zip(pieces, params, strict=True))
        return (grad_input, None, None, None, *grad_states, *grad_params)
