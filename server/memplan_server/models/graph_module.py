"""A module whose forward pass is the nodes of a captured graph.

It has the modules of the captured model by their paths, each with its parameters and buffers, so
that memory is attributed as in the model itself. Values are let go of as the program would.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from torch.utils import checkpoint

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
    first_result: int
    """Number of the first value that it defines."""
    uses: tuple[int, ...]
    """Numbers of the values that are its arguments."""
    releases: tuple[int, ...]
    at: str
    """Its place in the request."""

    @property
    def checkpoint(self) -> int:
        """The checkpointed part it is in; 0 for none."""
        return 0 if self.context is None else self.context.checkpoint


class Scope(nn.Module):
    """One module of the captured model. Called with a run of its nodes."""

    def forward(self, state: _State, instructions: Sequence[Instruction]) -> None:
        """Execute the instructions in order."""
        for instruction in instructions:
            with _surroundings(instruction.context, state.device.type):
                state.execute(instruction)


class _State:
    """The values of one forward pass, or of one execution of a checkpointed part."""

    def __init__(self, values: dict[int, Any], batch_size: int, device: torch.device) -> None:
        self.values = values
        self.batch_size = batch_size
        self.device = device

    def execute(self, instruction: Instruction) -> None:
        """Execute one, keep what it gives, and let go of what the program lets go of."""
        positional, named = instruction.bound.resolve(self)
        try:
            result = instruction.operator(*positional, **named)
        except (MemplanError, MemoryError, checkpoint._StopRecomputationError):
            raise
        except Exception as error:  # whatever PyTorch raises for arguments that do not go together
            raise _failed(instruction, error) from error
        del positional, named
        self._keep(instruction, result)
        self.release(instruction.releases)

    def release(self, values: Iterable[int]) -> None:
        """Let go of values."""
        for value in values:
            self.values.pop(value, None)

    def _keep(self, instruction: Instruction, result: Any) -> None:
        first = instruction.first_result
        if not instruction.result_count:
            self.values[first] = result
            return
        if not isinstance(result, (tuple, list)) or len(result) != instruction.result_count:
            count = len(result) if isinstance(result, (tuple, list)) else 1
            said = (
                f"{instruction.name} gives {count} results here, not {instruction.result_count}. "
                "The job's assumptions must be those that the graph was captured with."
            )
            raise InvalidJob(Violation(f"{instruction.at}.result_count", said))
        self.values.update(enumerate(result, first))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """Nodes that are executed together: a checkpointed part, or what is between two."""

    checkpointed: bool
    runs: tuple[tuple[Scope, tuple[Instruction, ...]], ...]
    """Nodes one after another, by the module that calls them."""
    inputs: tuple[int, ...]
    """Values from outside, those that the model holds left out."""
    results: tuple[int, ...]
    """Values that are used after it."""
    releases: tuple[int, ...]
    """Values from outside that it is the last to use."""

    def execute(self, state: _State) -> None:
        """Execute every node."""
        for scope, run in self.runs:
            if isinstance(scope, GraphModel):  # which is being called already
                Scope.forward(scope, state, run)
            else:
                scope(state, run)


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
        self._parts = [
            _part(tuple(part), checkpointed=region > 0, held=len(holders))
            for region, part in itertools.groupby(instructions, key=lambda i: i.checkpoint)
        ]
        self._outputs = outputs
        self._loss = loss
        self._fixed_batch_size = fixed_batch_size

    def forward(self, *inputs: Any) -> Any:
        """The loss and the outputs, as the captured model returns them."""
        held = {i: getattr(holder, name) for i, (holder, name) in enumerate(self._holders)}
        batch_size = batch_size_of(self._inputs, [i.shape for i in inputs])
        state = _State(
            held | dict(enumerate(inputs, len(held))),
            batch_size or self._fixed_batch_size or 1,
            inputs[0].device,
        )
        for part in self._parts:
            if part.checkpointed:
                _checkpoint(part, state, held)
            else:
                part.execute(state)
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


def _part(instructions: tuple[Instruction, ...], *, checkpointed: bool, held: int) -> _Part:
    first = instructions[0].first_result
    used = {value for i in instructions for value in i.uses}
    released = [value for i in instructions for value in i.releases]
    defined = [i.first_result + n for i in instructions for n in range(max(i.result_count, 1))]
    runs = itertools.groupby(instructions, key=lambda i: i.scope)
    return _Part(
        checkpointed=checkpointed,
        runs=tuple((scope, tuple(run)) for scope, run in runs),
        inputs=tuple(sorted(value for value in used if held <= value < first)),
        results=tuple(sorted({*defined} - {*released})),
        releases=tuple(value for value in released if value < first),
    )


def _checkpoint(part: _Part, state: _State, held: Mapping[int, Any]) -> None:
    """Execute the part as torch.utils.checkpoint does: once now, once more in backward."""

    batch_size, device = state.batch_size, state.device  # autograd must not keep all the values

    def execute(*given: Any) -> tuple[Any, ...]:
        values = {**held, **dict(zip(part.inputs, given, strict=True))}
        inner = _State(values, batch_size, device)
        del given, values
        part.execute(inner)
        return tuple(inner.values[value] for value in part.results)

    given = [state.values.get(value) for value in part.inputs]
    found = checkpoint.checkpoint(execute, *given, use_reentrant=False)
    state.values.update(zip(part.results, found, strict=True))
    state.release(part.releases)


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
