"""A module whose forward pass is the nodes of a captured graph.

It has the modules of the captured model by their paths, each with its parameters and buffers, so
that memory is attributed as in the model itself. Values are let go of as the program would.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from memplan.types import GraphContext, GraphInput
from memplan_server.errors import InvalidJob, MemplanError, Violation
from memplan_server.models.explained import first_line
from memplan_server.models.graph_arguments import Bound, torch_dtype
from memplan_server.models.graph_sizes import batch_size_of

__all__ = ["GraphModel", "Instruction", "Scope"]


_NEEDS_DATA = (DataDependentOutputException, DynamicOutputShapeException)


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """A node, ready to be executed."""

    operator: Any
    name: str
    bound: Bound
    scope: Scope
    context: GraphContext | None
    result_count: int
    """0: one tensor, or nothing, not in a list."""
    releases: tuple[int, ...]
    at: str
    """Its place in the request."""


class Scope(nn.Module):
    """One module of the captured model. Called with a run of its nodes."""

    def forward(self, state: _State, instructions: Sequence[Instruction]) -> None:
        """Execute the instructions in order."""
        for instruction in instructions:
            with _surroundings(instruction.context, state.device.type):
                state.execute(instruction)


class _State:
    """The values of one forward pass."""

    def __init__(self, values: list[Any], batch_size: int, device: torch.device) -> None:
        self.values = values
        self.batch_size = batch_size
        self.device = device

    def execute(self, instruction: Instruction) -> None:
        """Execute one, keep what it gives, and let go of what the program lets go of."""
        positional, named = instruction.bound.resolve(self)
        try:
            result = instruction.operator(*positional, **named)
        except (MemplanError, MemoryError):
            raise
        except Exception as error:  # whatever PyTorch raises for arguments that do not go together
            raise _failed(instruction, error) from error
        del positional, named
        self._keep(instruction, result)
        for value in instruction.releases:
            self.values[value] = None

    def _keep(self, instruction: Instruction, result: Any) -> None:
        if not instruction.result_count:
            self.values.append(result)
            return
        if not isinstance(result, (tuple, list)) or len(result) != instruction.result_count:
            count = len(result) if isinstance(result, (tuple, list)) else 1
            said = (
                f"{instruction.name} gives {count} results here, not {instruction.result_count}. "
                "The job's assumptions must be those that the graph was captured with."
            )
            raise InvalidJob(Violation(f"{instruction.at}.result_count", said))
        self.values.extend(result)


class GraphModel(Scope):
    """The captured model: forward(*inputs) as its loop calls it."""

    def setup(
        self,
        *,
        holders: Sequence[tuple[Scope, str]],
        inputs: Sequence[GraphInput],
        instructions: Sequence[Instruction],
        outputs: Mapping[str, int] | Sequence[int],
        loss: int | None,
        fixed_batch_size: int,
    ) -> None:
        """Where the tensors are that it holds, and what forward() does and returns."""
        self._holders = tuple(holders)
        self._inputs = tuple(inputs)
        self._runs = [
            (scope, tuple(run))
            for scope, run in itertools.groupby(instructions, key=lambda i: i.scope)
        ]
        self._outputs = outputs
        self._loss = loss
        self._fixed_batch_size = fixed_batch_size

    def forward(self, *inputs: Any) -> Any:
        """The loss and the outputs, as the captured model returns them."""
        if inputs and isinstance(inputs[0], _State):
            return super().forward(*inputs)
        values: list[Any] = [getattr(holder, name) for holder, name in self._holders]
        values += inputs
        batch_size = batch_size_of(self._inputs, [i.shape for i in inputs])
        state = _State(values, batch_size or self._fixed_batch_size or 1, inputs[0].device)
        for scope, run in self._runs:
            if scope is self:
                super().forward(state, run)
            else:
                scope(state, run)
        return self._result(state)

    def _result(self, state: _State) -> Any:
        outputs, values = self._outputs, state.values
        if isinstance(outputs, Mapping):
            found: Any = {name: values[value] for name, value in outputs.items()}
        else:
            found = tuple(values[value] for value in outputs)
        if self._loss is not None:
            return {"loss": _single(values[self._loss]), "outputs": found}
        return found[0] if isinstance(found, tuple) and len(found) == 1 else found


def _single(loss: Any) -> torch.Tensor:
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        said = "must be a tensor with one element."
        raise InvalidJob(Violation("job.model.graph.loss", said))
    return loss


@contextlib.contextmanager
def _surroundings(context: GraphContext | None, device_type: str) -> Iterator[None]:
    if context is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        if context.no_grad:
            stack.enter_context(torch.no_grad())
        if context.autocast is not None:
            dtype = torch_dtype(context.autocast_dtype) if context.autocast else None
            stack.enter_context(torch.autocast(device_type, dtype=dtype, enabled=context.autocast))
        yield


def _failed(instruction: Instruction, error: Exception) -> Exception:
    """What an operator raised, with the node's place."""
    said = f"{instruction.name} cannot be executed: {first_line(error)}"
    if isinstance(error, _NEEDS_DATA):
        said = f"{instruction.name} needs the values of data, which there are none of here."
    return InvalidJob(Violation(instruction.at, said))
