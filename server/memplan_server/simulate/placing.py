"""Moves a model from the meta device to the simulated GPU, and undoes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from memplan_server.simulate import recurrent
from memplan_server.timeline import Category
from memplan_server.training import Observer

__all__ = ["Whole", "attributes_to_host", "place", "restored"]


class Whole:
    """A model that is there as it is; `sharding.Sharded` is the other kind."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def place(self, observer: Observer, device: torch.device) -> None:
        """Make it on the device."""
        place(self.module, observer, device)

    def followed(self, observer: Observer) -> contextlib.AbstractContextManager[None]:
        """Nothing happens besides operators."""
        return contextlib.nullcontext()


def place(model: nn.Module, observer: Observer, device: torch.device) -> None:
    """`model.to(device)`: every distinct parameter and buffer is made once there, children first.

    Tensors that are plain attributes stay in host memory, as with `Module.to`.
    """
    _Placer(observer, device).place(model)
    attributes_to_host(model)


def attributes_to_host(model: nn.Module) -> None:
    """Tensors that are plain attributes lie in host memory, of modules on the meta device, too."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor) and value.is_meta:
                if id(value) not in made:
                    made[id(value)] = _like(value, torch.device("cpu"))
                vars(module)[name] = made[id(value)]


class _Placer:
    def __init__(self, observer: Observer, device: torch.device) -> None:
        self._observer = observer
        self._device = device
        self._parameters: dict[int, nn.Parameter] = {}
        self._tensors: dict[int, torch.Tensor] = {}

    def place(self, module: nn.Module) -> None:
        for child in module.children():
            self.place(child)
        with self._observer.category(Category.PARAMETER):
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = self._parameter(parameter)
            recurrent.flatten(module)
        with self._observer.category(Category.BUFFER):
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = self._once(buffer)

    def _parameter(self, parameter: nn.Parameter) -> nn.Parameter:
        """Tied parameters stay one."""
        if id(parameter) not in self._parameters:
            data = _like(parameter, self._device)
            self._parameters[id(parameter)] = nn.Parameter(data, parameter.requires_grad)
        return self._parameters[id(parameter)]

    def _once(self, tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in self._tensors:
            self._tensors[id(tensor)] = _like(tensor, self._device)
        return self._tensors[id(tensor)]


def _like(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put every attribute, parameter and buffer of every module back afterwards.

    Models keep tables and counters they make on the way; left behind, they would belong to a device
    that is gone, and would be missing from the next execution.
    """
    modules = list(model.modules())
    before = [(dict(vars(m)), dict(m._parameters), dict(m._buffers)) for m in modules]
    try:
        yield
    finally:
        for module, (attributes, parameters, buffers) in zip(modules, before, strict=True):
            vars(module).clear()
            vars(module).update(attributes)
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            module._buffers.update(buffers)
