"""The tensors that a module holds, each once, and its modules by their paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from memplan.capturing.batches import data_type
from memplan.types import GraphModule, GraphTensor, GraphTensorKind

__all__ = ["Held", "floating_type", "holdings"]


@dataclass
class Held:
    """The tensors that the module holds, and where."""

    modules: list[GraphModule]
    tensors: list[GraphTensor]
    by_name: dict[str, int]
    """Number of each tensor by every name that it has in the module."""
    module_index: dict[str, int]
    """Index of each module by every path that it has."""


def holdings(module: nn.Module, groups: Mapping[int, int]) -> Held:
    """The tensors that the module holds, each once. `groups`: optimizer group by tensor id."""
    held = Held([], [], {}, {})
    numbers: dict[int, int] = {}
    first_path: dict[int, str] = {}
    names: list[list[str]] = []
    for path, inner in module.named_modules(remove_duplicate=False):
        if id(inner) in first_path:
            held.module_index[path] = held.module_index[first_path[id(inner)]]
        else:
            first_path[id(inner)] = path
            held.module_index[path] = len(held.modules)
            held.modules.append(GraphModule(path=path, type=type(inner).__name__))
        for name, tensor in (*inner._parameters.items(), *inner._buffers.items()):
            if tensor is None:
                continue
            full = f"{path}.{name}" if path else name
            if id(tensor) not in numbers:
                numbers[id(tensor)] = len(held.tensors)
                held.tensors.append(_described(tensor, held.module_index[path], name, groups))
                names.append([])
            else:
                names[numbers[id(tensor)]].append(full)
            held.by_name[full] = numbers[id(tensor)]
    held.tensors = [
        replace(tensor, tied_names=tuple(further))
        for tensor, further in zip(held.tensors, names, strict=True)
    ]
    return held


def floating_type(module: nn.Module) -> torch.dtype:
    """The type that most of the module's numbers have; float32 where it has none."""
    sizes = Counter({torch.float32: 0})
    for parameter in module.parameters():
        if parameter.is_floating_point():
            sizes[parameter.dtype] += parameter.numel()
    return max(sizes, key=sizes.__getitem__)


def _described(
    tensor: torch.Tensor, module: int, name: str, groups: Mapping[int, int]
) -> GraphTensor:
    is_parameter = isinstance(tensor, nn.Parameter)
    contiguous = tensor.is_contiguous()
    return GraphTensor(
        kind=GraphTensorKind.PARAMETER if is_parameter else GraphTensorKind.BUFFER,
        module=module,
        name=name,
        shape=tuple(tensor.shape),
        strides=() if contiguous else tuple(tensor.stride()),
        dtype=data_type(tensor.dtype, name),
        frozen=is_parameter and not tensor.requires_grad,
        optimizer_group=groups.get(id(tensor), 0),
    )
