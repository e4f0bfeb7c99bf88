"""Convolutions and pooling of a layer stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from memplan.types import Convolution, Pooling, PoolingType
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models import layer_modules as modules
from memplan_server.models.layer_flow import Flow, Place
from memplan_server.models.layer_shapes import (
    convolved,
    looks_channels_last,
    per_dimension,
    spoken,
    transposed_convolved,
)

__all__ = ["convolution", "pooling", "transposed_convolution"]

Made = tuple[nn.Module, Flow]
_SPATIAL = "[channels, 1 to 3 spatial dimensions]"
_ADAPTIVE = (PoolingType.ADAPTIVE_MAX, PoolingType.ADAPTIVE_AVERAGE)


def convolution(layer: Convolution, flow: Flow, place: Place) -> Made:
    """nn.Conv1d, 2d or 3d by what flows in."""
    groups = _channels(layer, flow, place)
    spatial = flow.shape[1:]
    lists = _lists(layer, len(spatial), place, ("kernel_size", "stride", "padding", "dilation"))
    if layer.same_padding:
        pairs = zip(lists["kernel_size"], lists["dilation"], strict=True)
        lists["padding"] = tuple(dilation * (kernel - 1) // 2 for kernel, dilation in pairs)
    sizes = _slid(spatial, lists, place)
    made = modules.CONVOLUTIONS[len(spatial) - 1]
    module = made(
        flow.shape[0], layer.out_channels, groups=groups, bias=layer.bias is not False, **lists
    )
    return module, flow.to(layer.out_channels, *sizes)


def transposed_convolution(layer: Convolution, flow: Flow, place: Place) -> Made:
    """nn.ConvTranspose1d, 2d or 3d by what flows in."""
    groups = _channels(layer, flow, place)
    spatial = flow.shape[1:]
    names = ("kernel_size", "stride", "padding", "dilation", "output_padding")
    lists = _lists(layer, len(spatial), place, names)
    columns = zip(*(lists[name] for name in names), strict=True)
    sizes = []
    for size, (kernel, stride, padding, dilation, more) in zip(spatial, columns, strict=True):
        if more and more >= max(stride, dilation):
            said = f"needs an output padding below its stride or dilation, not {more}."
            place.fail("output_padding", said)
        grown = transposed_convolved(
            size,
            kernel=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            output_padding=more,
        )
        if grown < 1:
            place.fail("padding", f"takes away more than there is of {spoken(spatial)}.")
        sizes.append(grown)
    made = modules.TRANSPOSED_CONVOLUTIONS[len(spatial) - 1]
    module = made(
        flow.shape[0], layer.out_channels, groups=groups, bias=layer.bias is not False, **lists
    )
    return module, flow.to(layer.out_channels, *sizes)


def pooling(layer: Pooling, flow: Flow, place: Place) -> Made:
    """Max, average and adaptive pooling over the spatial dimensions."""
    place.numbers(flow)
    place.rank(flow, (2, 3, 4), _SPATIAL)
    channels, *spatial = flow.shape
    kind = PoolingType.MAX if layer.type is PoolingType.UNSPECIFIED else layer.type
    made = modules.POOLINGS[kind][len(spatial) - 1]
    if kind in _ADAPTIVE:
        output = _list(layer.output_size, len(spatial), 1, place, "output_size")
        return made(output), flow.to(channels, *output)
    kernel = _list(layer.kernel_size, len(spatial), 0, place, "kernel_size")
    stride = _list(layer.stride or kernel, len(spatial), 1, place, "stride")
    padding = _list(layer.padding, len(spatial), 0, place, "padding")
    for pad, size in zip(padding, kernel, strict=True):
        if pad > size // 2:
            place.fail("padding", f"pads {pad}, more than half of its kernel size {size}.")
    once = (1,) * len(spatial)
    lists = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": once}
    sizes = _slid(spatial, lists, place)
    return made(kernel, stride, padding), flow.to(channels, *sizes)


def _channels(layer: Convolution, flow: Flow, place: Place) -> int:
    """Check the channels that flow in; the number of groups."""
    place.numbers(flow)
    place.rank(flow, (2, 3, 4), _SPATIAL)
    channels, given = flow.shape[0], layer.in_channels
    _refuse_channels_last(given, flow, place)
    if given and given != channels:
        said = f"is given {given} input channels, but {channels} flow in ({spoken(flow.shape)})."
        place.fail("in_channels", said)
    groups = channels if layer.groups == -1 else max(layer.groups, 1)
    for name, count in (("channels that flow in", channels), ("out_channels", layer.out_channels)):
        if count % groups:
            place.fail("groups", f"cannot divide {count} {name} into {groups} groups.")
    place.bounded("out_channels", layer.out_channels, channels // groups, *layer.kernel_size)
    return groups


def _refuse_channels_last(given: int, flow: Flow, place: Place) -> None:
    """An input of HxWxC straight into a convolution that does not say it wants H channels."""
    shape = flow.shape
    if flow.untouched and given in (0, shape[-1]) and looks_channels_last(shape):
        height, width, channels = shape
        said = (
            f"{spoken(shape)} looks like HxWxC; layer {place.label} takes CxHxW: give "
            f"{spoken((channels, height, width))}, or state in_channels: {height} if it is meant."
        )
        raise InvalidJob(Violation("job.inputs[0].shape", said))


def _lists(
    layer: Convolution, dimensions: int, place: Place, names: Sequence[str]
) -> dict[str, Any]:
    """Each list with one number for each spatial dimension."""
    defaults = {"kernel_size": 0, "stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
    return {
        name: _list(getattr(layer, name), dimensions, defaults[name], place, name) for name in names
    }


def _list(
    values: Sequence[int], dimensions: int, default: int, place: Place, name: str
) -> tuple[int, ...]:
    if name == "kernel_size" and not values:
        place.fail(name, "needs a kernel size.")
    found = per_dimension(values, dimensions, default)
    if found is None:
        said = (
            f"has {len(values)} numbers for {dimensions} spatial dimensions: give one or as many."
        )
        place.fail(name, said)
    return found


def _slid(
    spatial: Sequence[int], lists: dict[str, tuple[int, ...]], place: Place
) -> tuple[int, ...]:
    """Spatial sizes after a kernel slid over them."""
    names = ("kernel_size", "stride", "padding", "dilation")
    columns = zip(*(lists[name] for name in names), strict=True)
    sizes = []
    for size, (kernel, stride, padding, dilation) in zip(spatial, columns, strict=True):
        out = convolved(size, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
        if out < 1:
            said = (
                f"slides a kernel of {dilation * (kernel - 1) + 1} over {size + 2 * padding}, "
                f"which does not fit ({spoken(spatial)} flows in)."
            )
            place.fail("kernel_size", said)
        sizes.append(out)
    return tuple(sizes)
