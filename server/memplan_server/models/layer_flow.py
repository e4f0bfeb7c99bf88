"""What flows through a layer stack, and where in the request a layer stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from memplan_server.errors import InvalidJob, Violation
from memplan_server.models.layer_shapes import MOST_ELEMENTS, spoken

__all__ = ["Flow", "Input", "Place"]


@dataclass(kw_only=True, slots=True)
class Input:
    """What the layers find out about the stack's input."""

    indices: bool | None = None
    """Whether it holds indices; None until a layer needs one or the other."""
    assumptions: dict[str, None] = field(default_factory=dict)
    """In the order in which they were made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """One sample between two layers."""

    shape: tuple[int, ...]
    input: Input
    untouched: bool = True
    """Whether it is still the input, at most reshaped."""

    def to(self, *shape: int) -> Flow:
        """After a layer that computes."""
        return replace(self, shape=shape, untouched=False)

    def viewed(self, *shape: int) -> Flow:
        """After a layer that only reshapes."""
        return replace(self, shape=shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A layer's place in the request."""

    path: str
    """`job.model.layer_stack.layers[3]`."""
    kind: str
    """The layer's field: `linear`."""
    label: str
    """Its name, or its position and kind: `3.linear`."""

    def fail(self, field: str, said: str) -> NoReturn:
        """Refuse the job because of this layer's `field`; empty for the layer as a whole."""
        path = f"{self.path}.{self.kind}.{field}" if field else f"{self.path}.{self.kind}"
        raise InvalidJob(Violation(path, f"Layer {self.label} {said}"))

    def numbers(self, flow: Flow) -> None:
        """The layer computes with numbers: the stack's input cannot be indices."""
        if not flow.untouched:
            return
        if flow.input.indices:
            said = f"Layer {self.label} takes floating-point numbers, not indices."
            raise InvalidJob(Violation("job.inputs[0].dtype", said))
        flow.input.indices = False

    def indices(self, flow: Flow) -> None:
        """The layer takes indices: nothing may have been computed before it."""
        if not flow.untouched:
            self.fail("", "takes indices, but what flows in are numbers: it must come first.")
        if flow.input.indices is False:
            said = f"Layer {self.label} takes indices: give the input as int64."
            raise InvalidJob(Violation("job.inputs[0].dtype", said))
        flow.input.indices = True

    def rank(self, flow: Flow, ranks: Sequence[int], layout: str) -> None:
        """The sample must have one of these numbers of dimensions."""
        if len(flow.shape) not in ranks:
            self.fail("", f"takes {layout}, but {spoken(flow.shape)} flows in.")

    def bounded(self, field: str, *sizes: int) -> None:
        """A tensor of these sizes must be small enough to exist."""
        if math.prod(sizes) > MOST_ELEMENTS:
            self.fail(field, f"would have a tensor of {spoken(sizes)}: more than 2^40 elements.")
