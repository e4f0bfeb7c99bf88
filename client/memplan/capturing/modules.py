"""capture(): a module becomes a Graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from memplan.capturing import merging
from memplan.capturing.accepting import accepted
from memplan.capturing.batches import Batch, BatchDim
from memplan.capturing.exporting import export, new_mode
from memplan.capturing.holdings import Held, floating_type, holdings
from memplan.capturing.optimizers import groups_of
from memplan.capturing.products import check_types
from memplan.capturing.sizes import BATCH_SIZE
from memplan.capturing.swapping import random_state_kept, swapped
from memplan.capturing.wrapping import LossFunction, Returned, Step
from memplan.capturing.writing import UnreadableSizeError, Written, write
from memplan.errors import CaptureError
from memplan.fakes import routing
from memplan.types import Assumptions, Graph, GraphOutput, Loss

__all__ = ["LARGER_BATCHES", "capture", "captured"]

LARGER_BATCHES = (
    "the model's code asks how large the batch is: larger ones than {} are taken to do the same"
)


def capture(module: nn.Module, example_inputs: Any, **options: Any) -> Graph:
    """The module's training graph, for every batch size.

        graph = memplan.capture(model, torch.empty(8, 3, 224, 224), loss=F.cross_entropy,
                                targets=torch.zeros(8, dtype=torch.int64))

    Nothing is computed and no memory taken, whatever the size of the module; it may be on the meta
    device. The module, its buffers and random numbers stay as they are.

    example_inputs: a tensor, an `InputTensor`, or a tuple of what forward() takes; only shapes and
        element types count. The options are those of `captured`.

    Raises `CaptureError` with the line of the module's code and what to do.
    """
    return captured(module, example_inputs, **options)[0]


def captured(
    module: nn.Module,
    example_inputs: Any,
    *,
    kwargs: Mapping[str, Any] | None = None,
    loss: LossFunction | Loss | None = None,
    targets: Any = (),
    batch_dim: BatchDim = 0,
    batch_size: int | None = None,
    assumptions: Assumptions | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    autocast: bool = True,
) -> tuple[Graph, int]:
    """`capture`, and the batch size of the example; 0 where its inputs are described.

    kwargs: what forward() takes by name.
    loss: what computes the loss: called with what the module returns and the `targets`; or a
        `memplan.Loss`, computed by the server's loop from the outputs. Default: the loss that the
        module returns (`.loss`, or a scalar), else the sum of its outputs, which is then said.
    batch_dim: where the batch dimension is, in all inputs or by name: {"hidden": 1, "table": None}.
    batch_size: how many samples the example holds. Default: the size of the first batch dimension.
    assumptions: how routers of mixture-of-experts are taken to route, and what conditions that
        forward() reads from tensors are taken to be. Those of the job have to be the same.
    optimizer: its parameter groups become a part of the graph.
    autocast: whether the loop may be under autocast, which makes unlike half and single types one.
    """
    module, sentences = accepted(module)
    if not (loss is None or isinstance(loss, Loss) or callable(loss)):
        said = "The loss must be a function of outputs and targets, or a memplan.Loss, not "
        raise CaptureError(f"{said}{loss!r:.60}.")
    batch = Batch.of(
        example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,),
        kwargs or {},
        targets if isinstance(targets, (tuple, list)) else (targets,),
        batch_dim=batch_dim,
        batch_size=batch_size,
        forward=module.forward,
        floating=floating_type(module),
    )
    held = holdings(module, {} if optimizer is None else groups_of(optimizer))
    function = None if isinstance(loss, Loss) else loss
    step = Step(module, batch, function, outputs_only=isinstance(loss, Loss))
    capturing = _Capturing(
        step, batch, held, assumptions or Assumptions(), autocast=autocast, stated=sentences
    )
    return capturing.graph(type(module).__name__), 0 if batch.is_described else batch.batch_size


class _Capturing:
    """Tries the ways there are, the best first."""

    def __init__(
        self,
        step: Step,
        batch: Batch,
        held: Held,
        assumptions: Assumptions,
        *,
        autocast: bool,
        stated: Sequence[str],
    ) -> None:
        self._step, self._batch, self._held = step, batch, held
        self._autocast, self._stated = autocast, stated
        self._conditions = not assumptions.conditions_are_false
        routing.route(assumptions.routing)

    def graph(self, name: str) -> Graph:
        """The graph for every batch size, else for that of the example."""
        try:
            written, held = self._exported(BATCH_SIZE, dynamic=True)
        except (CaptureError, UnreadableSizeError):
            return self._without_symbols(name)
        if written.largest_batch_size:
            self._step.returned.assume(LARGER_BATCHES.format(written.largest_batch_size))
        return _graph(name, self._batch, held, written, self._step.returned)

    def _exported(self, batch_size: int, *, dynamic: bool) -> tuple[Written, Held]:
        mode, held = new_mode(), copy.deepcopy(self._held)
        # Without those of an attempt before.
        self._step.returned.assumptions = dict.fromkeys(self._stated)

        def fake(tensor: torch.Tensor) -> torch.Tensor:
            with mode:
                return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)

        with random_state_kept(), swapped(self._step, fake):
            with mode:
                tensors = self._batch.fakes(batch_size)
            program = export(
                self._step, self._batch, tensors, dynamic=dynamic, conditions=self._conditions
            )
            check_types(program, autocast=self._autocast)
            return write(program, self._batch, held, dynamic=dynamic), held

    def _without_symbols(self, name: str) -> Graph:
        """From graphs at several batch sizes; else at one batch size."""
        several = [self._exported(b, dynamic=False) for b in merging.BATCH_SIZES]
        held, returned = several[0][1], self._step.returned
        together = merging.merged([written for written, _ in several])
        if together is not None:
            return _graph(name, self._batch, held, together, returned)
        return self._fixed(name)

    def _fixed(self, name: str) -> Graph:
        fixed = self._batch.batch_size
        written, held = self._exported(fixed, dynamic=False)
        said = (
            f"the model computes something else at other batch sizes: the graph holds for {fixed} "
            "only, and other batch sizes cannot be searched"
        )
        graph = _graph(name, self._batch, held, written, self._step.returned)
        return replace(graph, fixed_batch_size=fixed, assumptions=(*graph.assumptions, said))


def _graph(name: str, batch: Batch, held: Held, written: Written, returned: Returned) -> Graph:
    values = list(written.results)
    loss = values.pop(0) if returned.has_loss else None
    if len(values) != len(returned.names):
        raise CaptureError("The module returns something else each time that it is called.")
    return Graph(
        name=name,
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
