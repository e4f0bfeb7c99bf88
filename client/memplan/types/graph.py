"""A model captured as the operators of its forward pass.

Counterpart of a part of `proto/memplan/v1/job.proto`: same names, same meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from memplan.types.dtypes import DataType

__all__ = [
    "Graph",
    "GraphArgument",
    "GraphArgumentList",
    "GraphContext",
    "GraphInput",
    "GraphModule",
    "GraphNode",
    "GraphOutput",
    "GraphSize",
    "GraphTensor",
    "GraphTensorKind",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphModule:
    """A module of a captured model."""

    path: str = ""
    """As in named_modules(): `layer1.0.conv1`. Empty for the model itself."""
    type: str = ""
    """Class name: `Conv2d`."""


class GraphTensorKind(StrEnum):
    """Kinds of tensors that a model holds."""

    UNSPECIFIED = "unspecified"
    """PARAMETER."""
    PARAMETER = "parameter"
    """torch.nn.Parameter."""
    BUFFER = "buffer"
    """A registered buffer."""
    CONSTANT = "constant"
    """A tensor that the code of the model makes from numbers, or keeps as a plain attribute.
    Without dimensions it is a number in host memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphTensor:
    """A tensor that a captured model holds."""

    kind: GraphTensorKind = GraphTensorKind.UNSPECIFIED
    """What it is. Default: PARAMETER."""
    module: int = 0
    """Index into `modules` of the module that holds it. Default 0."""
    name: str = ""
    """Its name there: `weight`."""
    shape: tuple[int, ...] = ()
    """At most 16 sizes, each 0 to 2^40."""
    strides: tuple[int, ...] = ()
    """Elements between neighbours in each dimension. Default: contiguous."""
    dtype: DataType = DataType.UNSPECIFIED
    """Element type. Default: FLOAT32."""
    frozen: bool = False
    """PARAMETER: it gets no gradient (requires_grad is false). Default false."""
    optimizer_group: int = 0
    """Which entry of the optimizer's `groups` it belongs to, counted from 1; 0 for none. Without
    groups the optimizer takes every parameter that is not frozen."""
    tied_names: tuple[str, ...] = ()
    """Further names of the same tensor in the model, for tied weights: `lm_head.weight`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphSize:
    """A size that may depend on the micro-batch size B: (fixed + per_sample * B + per_sample_pair *
    B * B) / divisor, rounded down."""

    fixed: int = 0
    """-2^40 to 2^40."""
    per_sample: int = 0
    """-2^40 to 2^40."""
    per_sample_pair: int = 0
    """-2^40 to 2^40."""
    divisor: int = 0
    """Default 1. 1 to 2^40."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphInput:
    """One tensor of a batch."""

    name: str = ""
    """Name of the parameter of forward() that takes it, for people."""
    shape: tuple[GraphSize, ...] = ()
    """The whole shape, batch dimension included. At most 16 sizes."""
    dtype: DataType = DataType.UNSPECIFIED
    """Element type. Default: FLOAT32."""
    is_target: bool = False
    """It is a target: the loss is computed with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphContext:
    """Surroundings in which nodes run."""

    no_grad: bool = False
    """Without autograd: torch.no_grad()."""
    autocast: bool | None = None
    """Inside a torch.autocast(enabled=...) of the model's own. Default: as the job's precision has
    it."""
    autocast_dtype: DataType = DataType.UNSPECIFIED
    """The element type of that autocast. Needed where it is enabled."""
    checkpoint: int = 0
    """Within torch.utils.checkpoint: which call of it, counted from 1. The nodes of one call follow
    one another; what they keep for backward goes after forward, and is computed anew there. 0:
    none. At most 1,000."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphArgument:
    """One argument of an operator. None of the kinds set: Python's None."""

    name: str = ""
    """Name of the operator's parameter. Default: by position."""
    value: int | None = None
    """A value, by its number."""
    integer: int | None = None
    """A whole number."""
    number: float | None = None
    """A number."""
    truth: bool | None = None
    """A truth value."""
    text: str | None = None
    """A word that the operator knows: `reflect`, or a memory format `channels_last`."""
    dtype: DataType | None = None
    """An element type."""
    size: GraphSize | None = None
    """A whole number that depends on the batch size."""
    list: GraphArgumentList | None = None
    """Several arguments, without names; lists do not contain lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphArgumentList:
    """A list of arguments."""

    items: tuple[GraphArgument, ...] = ()
    """At most 4,096."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphNode:
    """One call of an operator."""

    operator: int = 0
    """Index into `operators`."""
    module: int = 0
    """Index into `modules` of the innermost module whose forward() calls it. Default 0."""
    context: int = 0
    """Index into `contexts`, counted from 1. 0: none."""
    arguments: tuple[GraphArgument, ...] = ()
    """Arguments by position, then those by name. Devices are left out: everything is on one GPU. At
    most 64."""
    result_count: int = 0
    """How many values it defines where the operator returns a tuple or a list, 1 to 4,096. 0: it
    returns one tensor, or nothing, and defines one value."""
    releases: tuple[int, ...] = ()
    """Values that the program lets go of once it has run. Default: a value that no node releases is
    let go of after its last use."""

    def used_values(self) -> Iterator[int]:
        """The values among its arguments."""
        for argument in self.arguments:
            if argument.value is not None:
                yield argument.value
            for item in argument.list.items if argument.list is not None else ():
                if item.value is not None:
                    yield item.value


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphOutput:
    """A tensor that forward() returns."""

    value: int = 0
    """Its value."""
    name: str = ""
    """Its key or attribute where the model returns a dictionary or a dataclass: `logits`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """A model captured as the operators of its forward pass, before autograd and before operators
    are decomposed: no code, no weights. `memplan.capture` makes one from a torch.nn.Module.

    Values are numbered: first the tensors that the model holds, then its inputs, then the results
    of each node in turn. A node names values that come before it and nothing else.
    """

    name: str = ""
    """Class of the model, for people: `ResNet`. At most 200 characters."""
    operators: tuple[str, ...] = ()
    """Names of the operators that nodes call, `aten.linear.default`. Only operators of PyTorch's
    namespace `aten` that compute tensors from tensors are executed; others are refused by name. At
    most 2,000."""
    modules: tuple[GraphModule, ...] = ()
    """The modules that nodes and tensors belong to; the first is the model itself. At most
    50,000."""
    tensors: tuple[GraphTensor, ...] = ()
    """Parameters, buffers and constants, each once however many names it has. At most 50,000."""
    inputs: tuple[GraphInput, ...] = ()
    """What the training loop feeds the model with: inputs, then targets. At least 1, at most 64."""
    contexts: tuple[GraphContext, ...] = ()
    """Surroundings in which nodes run. At most 1,000."""
    nodes: tuple[GraphNode, ...] = ()
    """The operators, in the order of execution. At least 1, at most 50,000."""
    outputs: tuple[GraphOutput, ...] = ()
    """What forward() returns, tensors only, in order. At least 1 unless there is a loss; at most
    1,000."""
    loss: int | None = None
    """The value that is the loss, a tensor with one element. Absent: `loss` of the job says how it
    is computed from the outputs."""
    fixed_batch_size: int = 0
    """The only micro-batch size it holds for. 0: it holds for all."""
    assumptions: tuple[str, ...] = ()
    """What capturing took for granted, in sentences; they are repeated in the answer. At most 50,
    each at most 500 characters."""
