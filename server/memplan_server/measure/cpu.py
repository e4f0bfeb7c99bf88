"""Writes down what a real run on the CPU allocates and frees.

    recording = HostRecorder()
    with recording:
        recording.adopt_model(module)       # it is there already
        loop.run()
    recording.events()

The counterpart of the simulated GPU's `Recorder` over real tensors: a storage that an operator
returns and that was not seen before is an allocation, and a weak reference notices its free.

Known limitations: memory that a kernel takes and gives back within one operator is not seen.
Operators are those that the CPU runs, which differ from CUDA's: dropout is several of them,
attention and RNNs have other kernels. A dispatch mode holds on to the arguments of a running
operator; where autograd would have added gradients in place, it is made to here.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from memplan_server.measure.events import Events, Section
from memplan_server.simulate import accumulation
from memplan_server.timeline import Phase
from memplan_server.training import Unobserved

__all__ = ["HostRecorder"]

_ADOPTED = "(model)"


class HostRecorder(TorchDispatchMode, Unobserved):
    """A dispatch mode, and an `Observer` of the training loop."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocated_bytes = 0
        """Bytes of storages alive."""
        self.peak_allocated_bytes = 0
        self._unshared = accumulation.references_when_unshared()
        self._events: list[int] = []
        self._sizes: list[int] = []
        self._operators: list[str] = []
        self._sections: list[Section] = []
        self._alive: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self._phase = Phase.SETUP

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._phase is Phase.BACKWARD:
            func = accumulation.in_place(func, args, self._unshared) or func
        out = func(*args, **(kwargs or {}))
        self._see_all(out, func._overloadpacket.__name__)
        return out

    def _see_all(self, out: Any, operator: str) -> None:
        if isinstance(out, torch.Tensor):
            self._see(out, operator)
        elif isinstance(out, (list, tuple)):
            for item in out:
                self._see_all(item, operator)

    def _see(self, tensor: torch.Tensor, operator: str) -> None:
        if tensor.device.type != "cpu":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        index, nbytes = len(self._sizes), storage.nbytes()
        self._sizes.append(nbytes)
        self._operators.append(operator)
        self._events.append(index)
        self.allocated_bytes += nbytes
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)

        def freed(_: object) -> None:
            del self._alive[key]
            self.allocated_bytes -= nbytes
            self._events.append(~index)

        self._alive[key] = (index, weakref.ref(storage, freed))

    def adopt_model(self, module: nn.Module) -> None:
        """Take what a model on the host holds for allocated now, in the order of `module.to`."""
        for child in module.children():
            self.adopt_model(child)
        for tensors in (module._parameters, module._buffers):
            for tensor in tensors.values():
                if tensor is not None:
                    self._see(tensor, _ADOPTED)

    def events(self) -> Events:
        """What happened so far."""
        return Events(
            events=tuple(self._events),
            sizes=tuple(self._sizes),
            operators=tuple(self._operators),
            sections=tuple(self._sections),
        )

    def close(self) -> None:
        """Stop listening: what is freed from now on is clean-up."""
        self._alive.clear()

    def enter(self, phase: Phase, step: int) -> None:
        """From now on it is this phase of this training step."""
        self._phase = phase
        self._sections.append(Section(len(self._events), phase, step))
