"""Convolutions as cuDNN makes them: memory layouts, copies and workspaces.

A new backend gets contiguous results whatever the layout of the input. On CUDA the layout follows
the input and the weight, what has another layout is copied first, and cuDNN takes a workspace while
its kernel runs. Sources: `_convolution` and `convolution_backward` in
aten/src/ATen/native/Convolution.cpp; aten/src/ATen/native/cudnn/ConvShared.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch._prims_common import suggest_memory_format

from memplan_server.timeline import Convolution

if TYPE_CHECKING:
    from memplan_server.simulate.recorder import Recorder

__all__ = ["KERNELS"]

_ATEN = torch.ops.aten
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

Tensor = torch.Tensor


def _convolution(
    recorder: Recorder,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    """None where the shapes do not go together: PyTorch's own check then says so."""
    call = _Call(recorder, input, weight, stride, dilation, transposed, groups)
    size = call.output_size(padding, output_padding)
    if size is None:
        return None
    copied = call.contiguous(input)
    output = call.empty(size, input.dtype)
    if call.cudnn:
        weights = call.contiguous(weight)
        call.workspace("dgrad" if transposed else "fprop", copied, output, padding)
        del weights
    if bias is not None and call.cudnn:
        output = recorder.execute(_ATEN.add_.Tensor, output, bias.view(-1, *[1] * (len(size) - 2)))
    return output


def _convolution_backward(
    recorder: Recorder,
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    call = _Call(recorder, input, weight, stride, dilation, transposed, groups)
    grads: list[Tensor | None] = [None, None, None]
    copied = call.contiguous(input) if output_mask[1] else input
    upper = call.contiguous(grad_output)
    if output_mask[0]:
        grads[0] = grad = call.empty(input.shape, input.dtype)
        if call.cudnn:
            weights = call.contiguous(weight)
            call.workspace("fprop" if transposed else "dgrad", grad, upper, padding)
            del weights
    if output_mask[1]:
        grads[1] = call.empty(weight.shape, weight.dtype)
        if call.cudnn:
            call.workspace("wgrad", copied, upper, padding)
    if output_mask[2]:
        dims = [0, *range(2, grad_output.dim())]
        grads[2] = recorder.execute(_ATEN.sum.dim_IntList, grad_output, dims)
    return grads[0], grads[1], grads[2]


class _Call:
    """One call of a convolution, and what cuDNN would be told about it."""

    def __init__(
        self,
        recorder: Recorder,
        input: Tensor,
        weight: Tensor,
        stride: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        groups: int,
    ) -> None:
        self._recorder, self._input, self._weight = recorder, input, weight
        self._stride, self._dilation = stride, dilation
        self._transposed, self._groups = transposed, groups
        self._layout = _layout(input, weight)
        self.cudnn = not self._native_depthwise()

    def _native_depthwise(self) -> bool:
        """PyTorch has kernels of its own for contiguous depthwise convolutions.

        cuDNN's are taken for channels-last tensors only; for contiguous half tensors a table of
        shapes decides (`use_cudnn_depthwise`), where both have about the same memory.
        """
        input, weight = self._input, self._weight
        return (
            not self._transposed
            and self._groups > 1
            and input.dim() > 3
            and input.shape[1] == self._groups
            and weight.shape[0] % input.shape[1] == 0
            and self._layout is torch.contiguous_format
        )

    def output_size(
        self, padding: Sequence[int], output_padding: Sequence[int]
    ) -> list[int] | None:
        """Shape of the result; None when there is none."""
        input, weight, groups = self._input.shape, self._weight.shape, self._groups
        channels = weight[0] if self._transposed else weight[1] * groups
        if len(input) != len(weight) or input[1] != channels or weight[0] % groups:
            return None
        dims = len(weight) - 2
        along = [
            _length(
                input[2 + d],
                weight[2 + d],
                _at(self._stride, d),
                _at(padding, d),
                _at(self._dilation, d),
                _at(output_padding, d) if self._transposed else None,
            )
            for d in range(dims)
        ]
        if min(along) < 1:
            return None
        return [input[0], weight[1] * groups if self._transposed else weight[0], *along]

    def contiguous(self, tensor: Tensor) -> Tensor:
        """The tensor, or a copy of it, in the layout of this convolution."""
        if tensor.is_contiguous(memory_format=self._layout):
            return tensor
        copy: Tensor = self._recorder.execute(
            _ATEN.clone.default, tensor, memory_format=self._layout
        )
        return copy

    def empty(self, size: Sequence[int], dtype: torch.dtype) -> Tensor:
        made: Tensor = self._recorder.execute(
            _ATEN.empty.memory_format,
            list(size),
            dtype=dtype,
            device=self._input.device,
            memory_format=self._layout,
        )
        return made

    def workspace(self, direction: str, x: Tensor, y: Tensor, padding: Sequence[int]) -> None:
        """What cuDNN takes and gives back: `x` is the image and `y` the result of `fprop`."""
        if self._transposed:
            x, y = y, x
        self._recorder.convolution_workspace(
            Convolution(
                direction=direction,
                itemsize=x.dtype.itemsize,
                dtype=str(x.dtype).removeprefix("torch."),
                channels_last=self._layout is not torch.contiguous_format,
                groups=self._groups,
                image=tuple(x.shape[1:]),
                kernel=tuple(self._weight.shape),
                result=tuple(y.shape[1:]),
                stride=tuple(self._stride),
                dilation=tuple(self._dilation),
            ),
            samples=x.shape[0],
            padding=padding,
        )


def _layout(input: Tensor, weight: Tensor) -> torch.memory_format:
    """Source: `cudnn_conv_suggest_memory_format` in aten/src/ATen/native/ConvUtils.h."""
    last = _CHANNELS_LAST.get(weight.dim())
    if last is None or torch.float64 in (input.dtype, weight.dtype):
        return torch.contiguous_format
    if last in (suggest_memory_format(input), suggest_memory_format(weight)):
        return last
    return torch.contiguous_format


def _at(values: Sequence[int], dim: int) -> int:
    return values[dim] if len(values) > 1 else values[0]


def _length(
    size: int, kernel: int, stride: int, padding: int, dilation: int, output_padding: int | None
) -> int:
    reach = dilation * (kernel - 1)
    if output_padding is None:
        return (size + 2 * padding - reach - 1) // stride + 1
    return (size - 1) * stride - 2 * padding + reach + output_padding + 1


KERNELS: dict[Any, Callable[..., Any]] = {
    _ATEN.convolution.default: _convolution,
    _ATEN.convolution_backward.default: _convolution_backward,
}
"""What executes each operator; None means that it can be executed as it is."""
