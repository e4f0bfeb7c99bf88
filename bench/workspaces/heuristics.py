"""Which engines cuDNN's heuristics propose for a convolution, and the workspaces these take.

    heuristics = Heuristics(Library.load(folder), properties(gpu_type))
    heuristics.choices(convolution, samples=32)[0].workspace_bytes

It is asked as PyTorch asks it (aten/src/ATen/native/cudnn/Conv_v8.cpp): heuristic mode "instant",
then "fallback"; results computed in float32; dense tensors, in which dimensions of one element have
the strides of their layout; one spatial dimension made two. Without cudnn.benchmark PyTorch takes
the first proposal that can be built and whose workspace can be allocated; with it, the fastest of
the first ten. Engines that convert float32 operands down, which PyTorch passes over, were not seen
among proposals.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from memplan_server.timeline import Convolution
from workspaces.backend import Attribute, CudnnError, Descriptor, Kind, Library, Type

__all__ = ["BENCHMARKED", "Choice", "Heuristics", "Mode", "padding"]

BENCHMARKED = 10
"""Proposals that PyTorch tries with cudnn.benchmark (`torch.backends.cudnn.benchmark_limit`)."""

ALIGNMENT = 16
"""Bytes. PyTorch finds 32 or 64 for what its allocator gave; the answers are the same."""

_DATA_TYPES = {"float32": 0, "float16": 2, "bfloat16": 9}
_CROSS_CORRELATION = 1


class Mode(IntEnum):
    """`cudnnBackendHeurMode_t`."""

    INSTANT = 0
    FALLBACK = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine with its configuration."""

    mode: Mode
    """Of the heuristics that proposed it."""
    engine: int
    """cuDNN's number of the engine, which is about the algorithm."""
    workspace_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shapes:
    """With two or three spatial dimensions, as cuDNN takes them."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    result: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


class Heuristics:
    """What a cuDNN proposes on a GPU; answers are kept."""

    def __init__(self, library: Library, gpu: Mapping[str, Any]) -> None:
        """`gpu` is its description, `devices.properties(gpu_type)`."""
        self.library, self.gpu = library, gpu
        text = json.dumps(gpu)
        self._device = library.descriptor(Kind.DEVICE).text(Attribute.DEVICE_JSON, text).finalize()
        self._known: dict[tuple[Convolution, int], tuple[Choice, ...]] = {}

    def choices(self, convolution: Convolution, samples: int) -> tuple[Choice, ...]:
        """At most `BENCHMARKED` proposals, in the order in which they would be tried.

        Raises CudnnError when there is none, or cuDNN refuses the convolution.
        """
        key = convolution, samples
        if key not in self._known:
            graph = _graph(self.library, convolution, samples)
            found = [choice for mode in Mode for choice in self._proposals(graph, mode)]
            if not found:
                raise CudnnError(f"cuDNN has no engine for {samples} samples of {convolution}.")
            self._known[key] = tuple(found[:BENCHMARKED])
        return self._known[key]

    def _proposals(self, graph: Descriptor, mode: Mode) -> list[Choice]:
        asked = self.library.descriptor(Kind.HEURISTICS)
        asked.descriptors(Attribute.HEURISTICS_GRAPH, graph)
        asked.descriptors(Attribute.HEURISTICS_DEVICE, self._device)
        asked.choice(Attribute.HEURISTICS_MODE, Type.HEURISTIC_MODE, mode).finalize()
        room = min(BENCHMARKED, asked.count(Attribute.HEURISTICS_RESULTS))
        made = [self.library.descriptor(Kind.ENGINE_CONFIGURATION) for _ in range(room)]
        found = asked.read(Attribute.HEURISTICS_RESULTS, made) if made else 0
        return [self._choice(configuration, mode) for configuration in made[:found]]

    def _choice(self, configuration: Descriptor, mode: Mode) -> Choice:
        engine = self.library.descriptor(Kind.ENGINE)
        configuration.read(Attribute.CONFIGURATION_ENGINE, [engine])
        return Choice(
            mode=mode,
            engine=engine.integer(Attribute.ENGINE_INDEX),
            workspace_bytes=configuration.integer(Attribute.CONFIGURATION_WORKSPACE_SIZE),
        )


def padding(convolution: Convolution) -> tuple[int, ...]:
    """The least padding, equal on both sides, that makes the result as long as it is.

    A timeline does not say it, the lengths do: exactly up to strides of 2; with longer strides
    several may give the same length. Raises CudnnError where none does.
    """
    images, kernels, results = convolution.image[1:], convolution.kernel[2:], convolution.result[1:]
    found = []
    for index, (image, kernel, result) in enumerate(zip(images, kernels, results, strict=True)):
        stride, dilation = _at(convolution.stride, index), _at(convolution.dilation, index)
        extent = dilation * (kernel - 1) + 1
        needed = (result - 1) * stride + extent - image
        found.append(max(0, math.ceil(needed / 2)))
        if (image + 2 * found[-1] - extent) // stride + 1 != result:
            raise CudnnError(f"No padding makes {result} of {image} elements in {convolution}.")
    return tuple(found)


def _at(values: Sequence[int], index: int) -> int:
    return values[index] if len(values) > 1 else values[0]


def _shapes(convolution: Convolution, samples: int) -> _Shapes:
    dims = len(convolution.image) - 1
    more = (1,) * (dims == 1)
    return _Shapes(
        image=(samples, convolution.image[0], *more, *convolution.image[1:]),
        kernel=(*convolution.kernel[:2], *more, *convolution.kernel[2:]),
        result=(samples, convolution.result[0], *more, *convolution.result[1:]),
        stride=(*more, *(_at(convolution.stride, d) for d in range(dims))),
        padding=(*(0 for _ in more), *padding(convolution)),
        dilation=(*more, *(_at(convolution.dilation, d) for d in range(dims))),
    )


_OPERATIONS = {
    "fprop": (Kind.FPROP, Attribute.FPROP_ALPHA),
    "dgrad": (Kind.DGRAD, Attribute.DGRAD_ALPHA),
    "wgrad": (Kind.WGRAD, Attribute.WGRAD_ALPHA),
}
"""Kind of each direction, and the first of six attributes that are in the same order for each."""


def _graph(library: Library, convolution: Convolution, samples: int) -> Descriptor:
    """The graph with this convolution alone."""
    shapes = _shapes(convolution, samples)
    kind, first = _OPERATIONS[convolution.direction]
    alpha, beta, how, kernel, image, result = (Attribute(first + i) for i in range(6))
    operation = library.descriptor(kind)
    operation.descriptors(how, _convolution(library, shapes))
    for attribute, name, shape in (
        (kernel, "w", shapes.kernel),
        (image, "x", shapes.image),
        (result, "y", shapes.result),
    ):
        operation.descriptors(attribute, _tensor(library, convolution, name, shape))
    operation.number(alpha, 1.0).number(beta, 0.0).finalize()
    graph = library.descriptor(Kind.GRAPH)
    return graph.descriptors(Attribute.GRAPH_OPERATIONS, operation).finalize()


def _convolution(library: Library, shapes: _Shapes) -> Descriptor:
    made = library.descriptor(Kind.CONVOLUTION)
    made.choice(Attribute.CONVOLUTION_COMPUTE_TYPE, Type.DATA_TYPE, _DATA_TYPES["float32"])
    made.choice(Attribute.CONVOLUTION_MODE, Type.CONVOLUTION_MODE, _CROSS_CORRELATION)
    made.integers(Attribute.CONVOLUTION_SPATIAL_DIMS, len(shapes.stride))
    made.integers(Attribute.CONVOLUTION_STRIDES, *shapes.stride)
    made.integers(Attribute.CONVOLUTION_DILATIONS, *shapes.dilation)
    made.integers(Attribute.CONVOLUTION_PRE_PADDINGS, *shapes.padding)
    made.integers(Attribute.CONVOLUTION_POST_PADDINGS, *shapes.padding)
    return made.finalize()


def _tensor(
    library: Library, convolution: Convolution, name: str, shape: Sequence[int]
) -> Descriptor:
    dtype = _DATA_TYPES.get(convolution.dtype)
    if dtype is None:
        known = ", ".join(_DATA_TYPES)
        raise CudnnError(f"cuDNN is asked about {known} only, not about {convolution.dtype}.")
    made = library.descriptor(Kind.TENSOR)
    made.choice(Attribute.TENSOR_DATA_TYPE, Type.DATA_TYPE, dtype)
    made.integers(Attribute.TENSOR_DIMENSIONS, *shape)
    made.integers(Attribute.TENSOR_STRIDES, *strides(shape, convolution.channels_last))
    made.integers(Attribute.TENSOR_ID, ord(name))
    made.integers(Attribute.TENSOR_ALIGNMENT, ALIGNMENT)
    return made.finalize()


def strides(shape: Sequence[int], channels_last: bool) -> tuple[int, ...]:
    """Of a dense tensor, in elements: samples or result channels, channels, lengths."""
    dims = range(len(shape))
    order = [0, *dims[2:], 1] if channels_last else list(dims)
    found = [0] * len(shape)
    step = 1
    for dim in reversed(order):
        found[dim] = step
        step *= shape[dim]
    return tuple(found)
