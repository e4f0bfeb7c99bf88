"""A captured graph -> a module that executes its nodes.

The structure of the graph was checked before (`validation.graph`): every index is in range and
every value comes before its use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from memplan.types import (
    Graph,
    GraphTensor,
    GraphTensorKind,
    Loss,
    Precision,
    TrainingJob,
)
from memplan_server.errors import InvalidJob, Violation
from memplan_server.models.built import BuiltModel
from memplan_server.models.construction import construction
from memplan_server.models.graph_arguments import bind, torch_dtype
from memplan_server.models.graph_module import GraphModel, Instruction, Scope
from memplan_server.models.graph_operators import find

__all__ = ["FIELD", "build"]

FIELD = "job.model.graph"
_HALF = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def build(job: TrainingJob, graph: Graph) -> BuiltModel:
    """The graph as a module. Raises `InvalidJob`."""
    _check_loss(job, graph)
    with construction(FIELD):
        scopes = _scopes(graph)
        holders = [_hold(scopes[t.module], t, i) for i, t in enumerate(graph.tensors)]
    model = scopes[0]
    assert isinstance(model, GraphModel)
    _check_precision(job, model)
    named = bool(graph.outputs) and all(output.name for output in graph.outputs)
    model.setup(
        holders=holders,
        inputs=graph.inputs,
        instructions=list(_instructions(graph, scopes)),
        outputs={o.name: o.value for o in graph.outputs}
        if named
        else [o.value for o in graph.outputs],
        loss=graph.loss,
        fixed_batch_size=graph.fixed_batch_size,
    )
    paths = {id(scope): path for path, scope in model.named_modules()}
    return BuiltModel(
        module=model.train(),
        inputs=graph.inputs,
        returns_loss=graph.loss is not None,
        assumptions=graph.assumptions,
        optimizer_groups={
            f"{paths[id(holder)]}.{name}".lstrip("."): tensor.optimizer_group
            for (holder, name), tensor in zip(holders, graph.tensors, strict=True)
            if _kind(tensor) is GraphTensorKind.PARAMETER
        },
        fixed_batch_size=graph.fixed_batch_size,
    )


def _check_loss(job: TrainingJob, graph: Graph) -> None:
    if graph.loss is None and job.loss is Loss.MODEL:
        said = "The graph has no loss of its own; name another, or capture the model with one."
        raise InvalidJob(Violation("job.loss", said))
    if graph.loss is not None and job.loss not in (Loss.UNSPECIFIED, Loss.MODEL):
        said = f"The graph has a loss of its own; leave {job.loss.value} out."
        raise InvalidJob(Violation("job.loss", said))


def _check_precision(job: TrainingJob, model: nn.Module) -> None:
    """A graph has its element types written into it."""
    wanted = _HALF.get(job.precision)
    if wanted is not None and all(p.dtype != wanted for p in model.parameters()):
        name = str(wanted).removeprefix("torch.")
        said = f"The graph has no {name} weights: capture the model after model.to(torch.{name})."
        raise InvalidJob(Violation("job.precision", said))


def _scopes(graph: Graph) -> list[Scope]:
    """The modules, each within its parent. The first is the model."""
    model = _scope(graph.modules[0].type if graph.modules else graph.name, GraphModel)
    by_path: dict[str, Scope] = {"": model}
    return [model, *(_placed(module.path, module.type, by_path) for module in graph.modules[1:])]


def _placed(path: str, kind: str, by_path: dict[str, Scope]) -> Scope:
    """The module at `path`; those around it that are not there are made."""
    if path not in by_path:
        outer, _, name = path.rpartition(".")
        scope = _scope(kind, Scope)
        _placed(outer, "Module", by_path).add_module(name, scope)
        by_path[path] = scope
    return by_path[path]


def _scope(kind: str, base: type[Scope]) -> Scope:
    """A module whose class has this name."""
    made: Scope = type(kind or "Module", (base,), {})()
    return made


def _kind(tensor: GraphTensor) -> GraphTensorKind:
    unspecified = tensor.kind is GraphTensorKind.UNSPECIFIED
    return GraphTensorKind.PARAMETER if unspecified else tensor.kind


def _hold(scope: Scope, tensor: GraphTensor, index: int) -> tuple[Scope, str]:
    """Make the tensor an attribute of its module: where it is."""
    dtype = torch_dtype(tensor.dtype)
    strides = tensor.strides or _contiguous(tensor.shape)
    data = torch.empty_strided(tensor.shape, strides, dtype=dtype)
    if data.untyped_storage().nbytes() > 2**50:
        raise InvalidJob(Violation(f"{FIELD}.tensors[{index}].shape", "is larger than a PiB."))
    if _kind(tensor) is GraphTensorKind.CONSTANT and not tensor.shape:
        setattr(scope, tensor.name, data)  # a number: it stays in host memory
    elif _kind(tensor) is GraphTensorKind.PARAMETER:
        scope.register_parameter(tensor.name, nn.Parameter(data, not tensor.frozen))
    else:
        with torch.no_grad():
            scope.register_buffer(tensor.name, data.fill_(1 if dtype.is_floating_point else 0))
    return scope, tensor.name


def _contiguous(shape: Sequence[int]) -> list[int]:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return strides


def _instructions(graph: Graph, scopes: Sequence[Scope]) -> Iterator[Instruction]:
    operators = [find(name) for name in graph.operators]
    releases = _releases(graph)
    defined = len(graph.tensors) + len(graph.inputs)
    for index, node in enumerate(graph.nodes):
        at = f"{FIELD}.nodes[{index}]"
        name, operator = graph.operators[node.operator], operators[node.operator]
        if operator is None:
            said = f"{name[:100]!r} is no operator that may be executed here."
            raise InvalidJob(Violation(f"{FIELD}.operators[{node.operator}]", said))
        yield Instruction(
            operator=operator,
            name=name,
            bound=bind(operator, node.arguments, f"{at}.arguments"),
            scope=scopes[node.module],
            context=graph.contexts[node.context - 1] if node.context else None,
            result_count=node.result_count,
            first_result=defined,
            uses=tuple(node.used_values()),
            releases=tuple(releases[index]),
            at=at,
        )
        defined += node.result_count or 1


def _releases(graph: Graph) -> list[list[int]]:
    """For each node, the values let go of after it."""
    held = {output.value for output in graph.outputs} | {graph.loss}
    last: dict[int, int] = {}
    defined = len(graph.tensors) + len(graph.inputs)
    for index, node in enumerate(graph.nodes):
        for value in node.used_values():
            last[value] = index
        results = node.result_count or 1
        last |= dict.fromkeys(range(defined, defined + results), index)
        defined += results
    for index, node in enumerate(graph.nodes):
        last |= dict.fromkeys(node.releases, index)
    found: list[list[int]] = [[] for _ in graph.nodes]
    for value, index in last.items():
        if value not in held:
            found[index].append(value)
    return found
