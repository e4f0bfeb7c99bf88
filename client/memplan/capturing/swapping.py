"""A module whose tensors are replaced by ones without data, for a while.

    with mode, swapped(module, fake) as table:
        module(...)                 # touches none of the module's own tensors
    # everything is as before

Nothing is copied: attributes of the modules are replaced and put back, whatever forward() did.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

__all__ = ["random_state_kept", "swapped"]

_PLAIN = (list, tuple, dict, set)


@contextlib.contextmanager
def swapped(
    module: nn.Module, fake: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[dict[int, torch.Tensor]]:
    """Replace every tensor that the modules hold; yields what stands for each, by id."""
    modules = list(module.modules())
    before = [_Held(m) for m in modules]
    try:
        table: dict[int, torch.Tensor] = {}
        for held in before:
            held.replace(lambda tensor: _replacement(tensor, table, fake))
        if not module.training:
            for inner in modules:
                vars(inner)["training"] = True
        yield table
    finally:
        for held in before:
            held.restore()


def _replacement(
    tensor: torch.Tensor, table: dict[int, torch.Tensor], fake: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """Tied tensors stay one."""
    if id(tensor) not in table:
        made = fake(tensor)
        if isinstance(tensor, nn.Parameter):
            # Without gradients, tensors end when the program lets go of them, as they do on a GPU
            # but for those that autograd keeps; and tracing is faster.
            made = nn.Parameter(made, requires_grad=False)
        table[id(tensor)] = made
    return table[id(tensor)]


class _Held:
    """What one module held before."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._attributes = dict(vars(module))
        self._parameters = dict(module._parameters)
        self._buffers = dict(module._buffers)
        self._contents = [
            (value, value.copy())
            for name, value in vars(module).items()
            if isinstance(value, (list, dict, set)) and name not in ("_parameters", "_buffers")
        ]

    def replace(self, replacement: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Put other tensors where there are some, in plain containers too."""
        for held in (self._module._parameters, self._module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = replacement(tensor)  # type: ignore[assignment]
        for name, value in self._attributes.items():
            if name not in ("_parameters", "_buffers", "_modules"):
                other = _mapped(value, replacement, depth=3)
                if other is not value:
                    vars(self._module)[name] = other

    def restore(self) -> None:
        """Put everything back."""
        module = self._module
        vars(module).clear()
        vars(module).update(self._attributes)
        for now, then in ((module._parameters, self._parameters), (module._buffers, self._buffers)):
            now.clear()
            now.update(then)  # type: ignore[arg-type]
        for container, content in self._contents:
            if _changed(container, content):  # containers that cannot be changed are not touched
                container.clear()
                put_back = container.extend if isinstance(container, list) else container.update
                put_back(content)


def _changed(container: Any, before: Any) -> bool:
    """Whether it holds other objects than before."""
    if isinstance(container, set):
        return set(map(id, container)) != set(map(id, before))
    now, then = (
        [*c.keys(), *c.values()] if isinstance(c, dict) else c for c in (container, before)
    )
    return [*map(id, now)] != [*map(id, then)]


def _mapped(value: Any, replacement: Callable[..., torch.Tensor], depth: int) -> Any:
    """The value with its tensors replaced; itself where it has none."""
    if isinstance(value, torch.Tensor):
        return replacement(value)
    if type(value) not in _PLAIN or not depth:
        return value
    items = list(value.values()) if isinstance(value, dict) else list(value)
    mapped = [_mapped(item, replacement, depth - 1) for item in items]
    if all(new is old for new, old in zip(mapped, items, strict=True)):
        return value
    return dict(zip(value, mapped, strict=True)) if isinstance(value, dict) else type(value)(mapped)


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Put the state of Python's and PyTorch's random numbers back afterwards."""
    python, host = random.getstate(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        torch.set_rng_state(host)
