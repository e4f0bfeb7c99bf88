"""LSTM, GRU and RNN as one cuDNN call, for the simulated GPU.

A new backend gets PyTorch's loop of one cell a time step; CUDA gets `_cudnn_rnn`, which keeps the
output, the last states and one reserve, and takes a workspace while it runs, as each half of its
backward does. What is allocated when follows aten/src/ATen/native/cudnn/RNN.cpp, and was compared
with 143 calls and two training jobs recorded on an H200 with cuDNN 9.19 and PyTorch 2.11.

Known limitations: packed sequences are not modelled. cuDNN's own sizes are found from these calls:
the reserve here, the workspace in `gpus/recurrent.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from memplan_server.simulate import DEVICE_TYPE
from memplan_server.simulate.autocast import cast
from memplan_server.timeline import Recurrent

if TYPE_CHECKING:
    from memplan_server.simulate.recorder import Recorder

__all__ = ["KERNELS", "flatten", "register", "reserve_bytes"]

_MODES = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}
_CELLS = ("rnn", "rnn", "lstm", "gru")
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
_KEPT = {"lstm": 5, "gru": 6, "rnn": 1}
"""Values of hidden size that the reserve has for each layer, direction and time step."""
_RESERVE_MORE = 256
_FLAT = (torch.float32, torch.float16, torch.float64)

_ATEN = torch.ops.aten
_AUTOCAST_KEY = "AutocastPrivateUse1"
_AUTOCAST = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, _AUTOCAST_KEY))
_libraries: list[torch.library.Library] = []  # a Library undoes its registrations when collected

Tensor = torch.Tensor


def register() -> None:
    """Register the kernels; once a process."""
    library = torch.library.Library("aten", "IMPL")
    for name in _MODES:
        library.impl(f"{name}.input", _kernel(name), "AutogradPrivateUse1")
    library.impl("_cudnn_rnn", _autocast, _AUTOCAST_KEY)
    _libraries.append(library)


def flatten(module: nn.Module) -> None:
    """The weights of a recurrent module become views of one tensor, where cuDNN takes their type.

    Source: `RNNBase.flatten_parameters`; of `torch.backends.cudnn.is_acceptable`, bfloat16 is none
    of the types.
    """
    if not isinstance(module, nn.RNNBase):
        return
    weights = [p for p in module._parameters.values() if p is not None]
    first = weights[0]
    alike = len({(w.dtype, w.device) for w in weights}) == 1
    if first.device.type != DEVICE_TYPE or first.dtype not in _FLAT or not alike:
        return
    flat = first.new_empty(_flat_elements(weights, 4 if module.bias else 2))
    for weight, view in zip(weights, _views(flat, weights), strict=True):
        weight.data = view


def _kernel(name: str) -> Callable[..., Any]:
    """Source: `_cudnn_impl` in aten/src/ATen/native/cudnn/RNN.cpp."""

    def kernel(
        input: Tensor,
        hx: Any,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        hidden, cell = hx if name == "lstm" else (hx, None)
        width = hidden.size(-1) if cell is None else cell.size(-1)
        projected = hidden.size(-1) if width != hidden.size(-1) else 0
        for_each_layer = (4 if has_biases else 2) + (projected > 0)
        shape: Any = (
            width,
            projected,
            num_layers,
            batch_first,
            dropout,
            train,
            bidirectional,
            [],
            None,
        )
        output, *last = _ATEN._cudnn_rnn.default(
            input, params, for_each_layer, _flat(params), hidden, cell, _MODES[name], *shape
        )[:3]
        return (output, *last) if cell is not None else (output, last[0])

    return kernel


def _flat(weights: Sequence[Tensor]) -> Tensor | None:
    """The tensor that all weights are views of, if there is one."""
    storages = {w.untyped_storage()._cdata for w in weights}
    return weights[0].detach() if len(storages) == 1 else None


class _Copy(torch.autograd.Function):
    """A weight's place in the flat buffer; backward makes a gradient of the weight's own type."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, place: Tensor) -> Tensor:
        ctx.dtype = weight.dtype
        return place.view(place.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.to(ctx.dtype), None


def _autocast(
    input: Tensor,
    weights: Sequence[Tensor],
    for_each_layer: int,
    flat: Tensor | None,
    hx: Tensor,
    cx: Tensor | None,
    *rest: Any,
) -> Any:
    """Autocast casts input and states, and copies the weights into one flat buffer, every time.

    Source: `_cudnn_rnn_cast_reflatten` in aten/src/ATen/cudnn/AutocastRNN.cpp.
    """
    dtype = torch.get_autocast_dtype(DEVICE_TYPE)
    with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
        if weights[0].dtype != dtype:
            flat = torch.zeros(
                _flat_elements(weights, for_each_layer), dtype=dtype, device=input.device
            )
            copy: Callable[..., Tensor] = _Copy.apply
            places = _views(flat, weights)
            weights = [copy(*pair) for pair in zip(weights, places, strict=True)]
        states = [cast(state, dtype) for state in (cx, hx)]
        return _ATEN._cudnn_rnn.default(
            cast(input, dtype), weights, for_each_layer, flat, *reversed(states), *rest
        )


def _flat_elements(weights: Sequence[Tensor], for_each_layer: int) -> int:
    """cuDNN's flat weights have room for biases, also where there are none."""
    elements = sum(w.numel() for w in weights)
    return (
        elements
        if for_each_layer > 3
        else elements + sum(2 * w.shape[0] for w in weights[::for_each_layer])
    )


def _views(flat: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    pieces = flat[: sum(w.numel() for w in weights)].split([w.numel() for w in weights])
    return [piece.view(w.shape) for piece, w in zip(pieces, weights, strict=True)]


class _Call:
    """One `_cudnn_rnn` or its backward: the arguments that both have."""

    def __init__(
        self,
        recorder: Recorder,
        input: Tensor,
        weights: Sequence[Tensor],
        for_each_layer: int,
        mode: int,
        hidden: int,
        projected: int,
        layers: int,
        batch_first: bool,
        dropout: float,
        train: bool,
        bidirectional: bool,
        *rest: Any,
    ) -> None:
        self._recorder, self._input = recorder, input
        self._batch_first = batch_first
        self.for_each_layer, self.train = for_each_layer, train
        batch, steps = input.shape[:2] if batch_first else (input.shape[1], input.shape[0])
        self.samples, self.output_width = batch, (projected or hidden) * (1 + bidirectional)
        self.shape = Recurrent(
            cell=_CELLS[mode],
            dtype=str(input.dtype).removeprefix("torch."),
            itemsize=input.dtype.itemsize,
            steps=steps,
            inputs=input.shape[-1],
            hidden=hidden,
            layers=layers,
            directions=1 + bidirectional,
            weights=sum(w.numel() for w in weights if w.dim() > 1),
            dropout=train and dropout > 0 and layers > 1,
            projected=projected > 0,
            forward=True,
        )

    def time_first(self, tensor: Tensor) -> Tensor:
        """The tensor, or a copy, as cuDNN reads it."""
        if self._batch_first:
            with self._recorder.unrecorded():
                tensor = tensor.transpose(0, 1)
        if tensor.is_contiguous():
            return tensor
        copy: Tensor = self._recorder.execute(
            _ATEN.clone.default, tensor, memory_format=torch.contiguous_format
        )
        return copy

    def empty(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        made: Tensor = self._recorder.execute(
            _ATEN.empty.memory_format,
            list(size),
            dtype=dtype or self._input.dtype,
            device=self._input.device,
        )
        return made

    def over_time(self, width: int) -> Tensor:
        """Made time first, and given as the program has it."""
        made = self.empty(self.shape.steps, self.samples, width)
        if not self._batch_first:
            return made
        with self._recorder.unrecorded():
            return made.transpose(0, 1)

    def workspace(self, *, forward: bool) -> int:
        """Allocate it; the recorder is given it back."""
        return self._recorder.buffer(replace(self.shape, forward=forward), self.samples)


def reserve_bytes(call: Recurrent, samples: int) -> int:
    """What is kept for backward: gates and states of each layer, the output of each layer but the
    last, and masks of one bit each where there is dropout between layers.

    Exact for the 143 measured calls but for the rounding of masks to 64 bytes, left out here as
    sizes are affine in the number of samples.
    """
    vectors = (_KEPT[call.cell] * call.layers + call.layers - 1) * call.directions
    step = call.hidden * call.steps
    masks = (call.layers - 1) * call.directions * -(-step * call.directions // 8)
    return samples * (vectors * step * call.itemsize + masks * call.dropout) + _RESERVE_MORE


def _cudnn_rnn(
    recorder: Recorder,
    input: Tensor,
    weights: Sequence[Tensor],
    for_each_layer: int,
    flat: Tensor | None,
    hx: Tensor,
    cx: Tensor | None,
    *arguments: Any,
) -> tuple[Tensor, ...]:
    call = _Call(recorder, input, weights, for_each_layer, *arguments)
    if call.shape.dropout:
        recorder.keep("dropout")
    copied = call.time_first(input)
    output = call.over_time(call.output_width)
    last = call.empty(*hx.shape), call.empty(*(cx.shape if cx is not None else (0,)))
    if flat is None:
        flat = call.empty(_flat_elements(weights, for_each_layer))
    workspace = call.workspace(forward=True)
    reserve = reserve_bytes(call.shape, call.samples) if call.train else 0
    kept = call.empty(reserve, dtype=torch.uint8)
    recorder.give_back([workspace])
    del copied
    return output, *last, kept, flat


def _cudnn_rnn_backward(
    recorder: Recorder,
    input: Tensor,
    weights: Sequence[Tensor],
    for_each_layer: int,
    flat: Tensor,
    hx: Tensor,
    cx: Tensor | None,
    output: Tensor,
    grad_output: Tensor | None,
    grad_hy: Tensor | None,
    grad_cy: Tensor | None,
    *arguments: Any,
) -> tuple[Any, ...]:
    """`_cudnn_rnn_backward_input`, then `_cudnn_rnn_backward_weight`."""
    call = _Call(recorder, input, weights, for_each_layer, *arguments)
    output_mask = arguments[-1]
    if grad_output is None:
        grad_output = recorder.execute(_ATEN.zeros_like.default, output)
    states = [state for state in (hx, cx) if state is not None]
    given = (grad_hy, grad_cy)[: len(states)]
    zeros = [call.empty(*s.shape) for s, grad in zip(states, given, strict=True) if grad is None]
    grad_input, grad_states = _backward_input(recorder, call, input, grad_output, states)
    grad_weights: list[Tensor | None] = [None] * len(weights)
    if output_mask[3]:
        grad_weights = [*_backward_weight(recorder, call, input, weights)]
    del zeros
    return grad_input, *grad_states, *[None] * (2 - len(states)), grad_weights


def _backward_input(
    recorder: Recorder,
    call: _Call,
    input: Tensor,
    grad_output: Tensor,
    states: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    copied, upper = call.time_first(input), call.time_first(grad_output)
    grad_input = call.over_time(call.shape.inputs)
    grad_states = [call.empty(*state.shape) for state in states]
    recorder.give_back([call.workspace(forward=False)])
    del upper, copied
    return grad_input, grad_states


def _backward_weight(
    recorder: Recorder, call: _Call, input: Tensor, weights: Sequence[Tensor]
) -> list[Tensor]:
    copied = call.time_first(input)
    flat = call.empty(_flat_elements(weights, call.for_each_layer))
    recorder.give_back([call.workspace(forward=False)])
    del copied
    with recorder.unrecorded():
        return _views(flat, weights)


KERNELS: dict[Any, Callable[..., Any]] = {
    _ATEN._cudnn_rnn.default: _cudnn_rnn,
    _ATEN._cudnn_rnn_backward.default: _cudnn_rnn_backward,
}
"""What executes each operator."""
