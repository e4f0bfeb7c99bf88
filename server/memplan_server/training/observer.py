"""What the training loop tells the one who watches it, and asks of the one who has data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Protocol

import torch

from memplan.types import GraphInput, InputTensor
from memplan_server.timeline import Category, Phase

__all__ = ["Data", "Observer", "Unobserved", "WithoutValues"]


class Observer(Protocol):
    """Hears what the loop does. The simulated GPU's `Recorder` is one."""

    micro_step: int
    """Index of the micro-batch in its step; the loop sets it."""

    def enter(self, phase: Phase, step: int) -> None:
        """From now on it is this phase of this training step."""

    def category(self, category: Category) -> contextlib.AbstractContextManager[None]:
        """Tensors made inside are for this."""
        ...

    def mark(self, tensors: Iterable[torch.Tensor], category: Category) -> None:
        """These tensors turn out to be for this."""

    def reserve(self) -> int:
        """A tensor belongs here whose size is known later; what is returned names it."""
        ...

    def fill(self, index: int) -> None:
        """The next tensor made is the one reserved."""

    def scalars_are(self, value: float) -> contextlib.AbstractContextManager[None]:
        """What `.item()` answers inside where there is no data; real data answers by itself."""
        ...

    def host_values(self) -> contextlib.AbstractContextManager[object]:
        """Tensors that are made inside in host memory have values, also where there is no data."""
        ...

    def assume(self, sentence: str) -> None:
        """This is taken for granted."""


class Data(Protocol):
    """Puts values into the tensors of a batch, in place; nothing else is made on the device."""

    def fill_input(self, spec: InputTensor | GraphInput, tensor: torch.Tensor) -> None:
        """`tensor` is passed to the model as `spec` says, for a batch."""

    def fill_target(self, tensor: torch.Tensor, classes: int | None) -> None:
        """`tensor` is a target: class indices below `classes`, or numbers when that is None."""


class Unobserved:
    """An observer that pays no attention."""

    micro_step = 0

    def enter(self, phase: Phase, step: int) -> None:
        """Nothing is written down."""

    def category(self, category: Category) -> contextlib.AbstractContextManager[None]:
        """Nothing is written down."""
        return contextlib.nullcontext()

    def mark(self, tensors: Iterable[torch.Tensor], category: Category) -> None:
        """Nothing is written down."""

    def reserve(self) -> int:
        """No place is kept: where targets are not known beforehand, they are made late."""
        return 0

    def fill(self, index: int) -> None:
        """No place was kept."""

    def scalars_are(self, value: float) -> contextlib.AbstractContextManager[None]:
        """Real data answers."""
        return contextlib.nullcontext()

    def host_values(self) -> contextlib.AbstractContextManager[object]:
        """They have."""
        return contextlib.nullcontext()

    def assume(self, sentence: str) -> None:
        """Nothing is written down."""


class WithoutValues:
    """For tensors without data."""

    def fill_input(self, spec: InputTensor | GraphInput, tensor: torch.Tensor) -> None:
        """There is nothing to fill."""

    def fill_target(self, tensor: torch.Tensor, classes: int | None) -> None:
        """There is nothing to fill."""
