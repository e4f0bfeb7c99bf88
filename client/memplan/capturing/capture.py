"""capture(): a module becomes a Graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from memplan.capturing.batches import Batch, BatchDim
from memplan.capturing.exporting import export, new_mode
from memplan.capturing.sizes import BATCH_SIZE
from memplan.capturing.swapping import random_state_kept, swapped
from memplan.capturing.wrapping import LossFunction, Returned, Step
from memplan.capturing.writing import Held, Written, holdings, write
from memplan.errors import CaptureError
from memplan.types import Graph, GraphOutput, Loss

__all__ = ["capture"]


def capture(
    module: nn.Module,
    example_inputs: Any,
    *,
    kwargs: Mapping[str, Any] | None = None,
    loss: LossFunction | Loss | None = None,
    targets: Any = (),
    batch_dim: BatchDim = 0,
    batch_size: int | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Graph:
    """The module's training graph, for every batch size.

        graph = memplan.capture(model, torch.empty(8, 3, 224, 224), loss=F.cross_entropy,
                                targets=torch.zeros(8, dtype=torch.int64))

    Nothing is computed and no memory taken, whatever the size of the module; it may be on the meta
    device. The module, its buffers and random numbers stay as they are.

    example_inputs: a tensor, an `InputTensor`, or a tuple of what forward() takes; `kwargs` by name.
        Only shapes and element types count.
    loss: what computes the loss: called with what the module returns and the `targets`; or a
        `memplan.Loss`, computed by the server's loop from the outputs. Default: the loss that the
        module returns (`.loss`, or a scalar), else the sum of its outputs, which is then said.
    batch_dim: where the batch dimension is, in all inputs or by name: {"hidden": 1, "table": None}.
    batch_size: how many samples the example holds. Default: the size of the first batch dimension.
    optimizer: its parameter groups become a part of the graph.

    Raises `CaptureError` with the line of the module's code and what to do.
    """
    args = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    batch = Batch.of(
        args,
        kwargs or {},
        targets if isinstance(targets, (tuple, list)) else (targets,),
        batch_dim=batch_dim,
        batch_size=batch_size,
        forward=module.forward,
    )
    held = holdings(module, _groups(optimizer))
    function = None if isinstance(loss, Loss) else loss
    step = Step(module, batch, function, outputs_only=isinstance(loss, Loss))
    written, returned = _exported(step, batch, held)
    return _graph(module, batch, held, written, returned)


def _groups(optimizer: torch.optim.Optimizer | None) -> dict[int, int]:
    """The optimizer's group of each parameter, counted from 1, by the parameter's id."""
    groups = [] if optimizer is None else optimizer.param_groups
    return {id(p): index for index, group in enumerate(groups, start=1) for p in group["params"]}


def _exported(step: Step, batch: Batch, held: Held) -> tuple[Written, Returned]:
    mode = new_mode()

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        with mode:
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)

    with random_state_kept(), swapped(step, fake):
        with mode:
            tensors = batch.fakes(BATCH_SIZE)
        program = export(step, batch, tensors, dynamic=True)
        return write(program, batch, held), step.returned


def _graph(
    module: nn.Module, batch: Batch, held: Held, written: Written, returned: Returned
) -> Graph:
    values = list(written.results)
    loss = values.pop(0) if returned.has_loss else None
    if len(values) != len(returned.names):
        raise CaptureError("The module returns something else each time that it is called.")
    return Graph(
        name=type(module).__name__,
        operators=tuple(written.operators),
        modules=tuple(held.modules),
        tensors=tuple(held.tensors),
        inputs=tuple(tensor.described() for tensor in batch.tensors),
        contexts=tuple(written.contexts),
        nodes=tuple(written.nodes),
        outputs=tuple(
            GraphOutput(value=value, name=name)
            for value, name in zip(values, returned.names, strict=True)
        ),
        loss=loss,
        assumptions=tuple(returned.assumptions),
    )
