"""Matrix products of tensors of unlike types, which PyTorch refuses when they have data.

Tensors without data pass through them unnoticed, so that it is checked afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx
from torch.export import ExportedProgram

from memplan.capturing.locating import line_of
from memplan.errors import CaptureError

__all__ = ["check_types"]

_PRODUCTS = frozenset(
    "linear matmul mm bmm mv dot addmm addmv baddbmm addbmm bilinear einsum".split()
)
_CAST = (torch.float32, torch.float16, torch.bfloat16)
"""What autocast makes one type of."""


def check_types(program: ExportedProgram, *, autocast: bool) -> None:
    """Raise `CaptureError` for a product of unlike types.

    autocast: whether the training loop may be under it, which makes half and single types one.
    """
    _check(program.graph_module, autocast=autocast)


def _check(module: fx.GraphModule, *, autocast: bool) -> None:
    for node in module.graph.nodes:
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            within = bool(node.args[2]) if str(node.target) == "wrap_with_autocast" else autocast
            for inner in _regions(module, node):
                _check(inner, autocast=within)
        elif getattr(node.target, "_opname", "") in _PRODUCTS:
            _check_product(node, autocast=autocast)


def _regions(module: fx.GraphModule, node: fx.Node) -> Iterator[fx.GraphModule]:
    """What a node of autocast or no_grad executes."""
    for argument in node.args:
        if isinstance(argument, fx.Node) and argument.op == "get_attr":
            inner = getattr(module, str(argument.target), None)
            if isinstance(inner, fx.GraphModule):
                yield inner


def _check_product(node: fx.Node, *, autocast: bool) -> None:
    types = dict.fromkeys(_types(node.args))
    unlike = {t for t in types if not autocast or t not in _CAST}
    if len(types) < 2 or not unlike:
        return
    names = " and ".join(str(t).removeprefix("torch.") for t in types)
    raise CaptureError(
        f"The module cannot be captured: a matrix product has operands of {names}, and PyTorch "
        "takes one type. Convert one of them, or give example inputs of the type that the module's "
        "parameters have.",
        location=line_of(node),
    )


def _types(arguments: object) -> Iterator[torch.dtype]:
    for argument in arguments if isinstance(arguments, (tuple, list)) else (arguments,):
        if isinstance(argument, (tuple, list)):
            yield from _types(argument)
        elif isinstance(argument, fx.Node):
            value = argument.meta.get("val")
            if isinstance(value, torch.Tensor):
                yield value.dtype
