"""Values of tensors that have none, where they follow from what is stated.

A simulated tensor has no data. Where a model decides by values (which tokens go to which expert,
whether a mask has padding, where an image's tokens are), they are worked out from what is known:
what the job states of its inputs, constants that the model makes, and how routers are taken to
route. Nothing is computed before it is asked for.

    known.state(mask, torch.ones(4, 512, dtype=torch.int64))
    known.follow(func, args, kwargs, out)           # after each operator
    value = known.value_of(tensor)                  # None where it depends on something unknown

Tensors that are really there, which a model keeps as plain attributes, are known as they are.

Known limitation: a view made before its base is written to in place keeps the values it had.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from memplan.fakes import routing

__all__ = ["CONDITIONS", "NUMBERS", "Known", "follow", "known_of", "state", "value_of"]

CONDITIONS = {
    truth: f"conditions read from tensors (`mask.all()`, `bool(tensor)`) are {said}"
    for truth, said in ((True, "true"), (False, "false (conditions_are_false)"))
}
"""What is said where the value of a condition is not known, by what it is taken to be."""
NUMBERS = "numbers read from tensors (`tensor.item()`) are 1"
"""What is said where the value of a number is not known."""

_MOST_BYTES = 1 << 29
"""Larger tensors are not followed: their values would take too much memory here."""
_ATTRIBUTE = "_memplan_known"
_ATEN = torch.ops.aten
_ZEROS, _ONES, _FULL = 0, 1, None
_FILLED: dict[Any, int | None] = {
    _ATEN.zeros.default: _ZEROS,
    _ATEN.zeros_like.default: _ZEROS,
    _ATEN.new_zeros.default: _ZEROS,
    _ATEN.ones.default: _ONES,
    _ATEN.ones_like.default: _ONES,
    _ATEN.new_ones.default: _ONES,
    _ATEN.full.default: _FULL,
    _ATEN.full_like.default: _FULL,
    _ATEN.new_full.default: _FULL,
    _ATEN.scalar_tensor.default: _FULL,
}
"""Operators whose result does not depend on the values of tensors, and what they fill it with."""
_RANGES = (_ATEN.arange.default, _ATEN.arange.start, _ATEN.arange.start_step)
_CHANCE = (_ATEN.rand.default, _ATEN.rand_like.default)
_ASSUMED_CHANCE = "random numbers that a model decides by (layer drop) are one half"
_ASSUMED_SAMPLE = "random samples (`randperm`) are the first elements"
_SORTS = (_ATEN.sort.default, _ATEN.sort.stable)
_ASSUMED_ORDER = "numbers that are sorted, and not known, are in order"
_MADE_ANEW = {
    *_FILLED,
    *_RANGES,
    *_CHANCE,
    *_SORTS,
    _ATEN.empty.memory_format,
    _ATEN.randperm.default,
    *routing.CHOICES,
}
"""Operators whose result is known whatever is known of their arguments."""
_OVERWRITING = (
    _ATEN.copy_.default,
    _ATEN.fill_.Scalar,
    _ATEN.fill_.Tensor,
    _ATEN.zero_.default,
)
"""Operators after which it does not matter what a tensor held before."""
_UNCERTAIN = torch.Tag.nondeterministic_seeded

Sentences = frozenset[str]
Tensor = torch.Tensor


class Known:
    """A value that is worked out when it is first asked for."""

    __slots__ = ("_make", "_value", "assumptions")

    def __init__(self, make: Callable[[], Any], assumptions: Sentences = frozenset()) -> None:
        self._make: Callable[[], Any] | None = make
        self._value: Any = None
        self.assumptions = assumptions
        """What it rests on, in sentences."""

    def value(self) -> Any:
        """A tensor on the host, or several; None where PyTorch cannot work it out there."""
        if self._make is not None:
            make, self._make = self._make, None
            try:
                self._value = make()
            except (RuntimeError, ValueError, TypeError, IndexError, RecursionError):
                self._value = None
        return self._value


def state(tensor: torch.Tensor, value: torch.Tensor, assumptions: Iterable[str] = ()) -> None:
    """The tensor holds these values."""
    setattr(tensor, _ATTRIBUTE, Known(lambda: value, frozenset(assumptions)))


def known_of(tensor: Any) -> Known | None:
    """What is known of a tensor."""
    noted: Known | None = getattr(tensor, _ATTRIBUTE, None)
    if noted is None and _is_real(tensor) and not hasattr(tensor, _ATTRIBUTE):
        return Known(lambda: tensor)
    return noted


def value_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor's values on the host; None where they depend on something unknown."""
    known = known_of(tensor)
    if known is None:
        return None
    with _disable_current_modes():
        value: torch.Tensor | None = known.value()
    return value


def result_of(func: Any, args: Any, kwargs: Any) -> tuple[Any, Sentences] | None:
    """What an operator gives, a tensor or a number; None where it is not known."""
    inputs = [*_tensors((args, kwargs))]
    if not inputs or not all(known_of(t) for t in inputs):
        return None
    result = Known(functools.partial(_execute, func, _held(args), _held(kwargs)))
    with _disable_current_modes():
        value = result.value()
    return None if value is None else (value, _all_assumptions(inputs))


def follow(func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Note what an operator's results hold, if that is known."""
    if func.namespace != "aten":
        return
    writes = _writes(func)
    if not writes and func not in _MADE_ANEW and _is_unknown(args):
        return
    inputs = [*_tensors((args, kwargs))]
    if writes:
        _follow_write(func, args, kwargs, inputs, writes)
        return
    made = _made(func, args, kwargs, inputs, out)
    if made is None:
        return
    if _has_no_data(out):
        _note(out, made)
    elif isinstance(out, (list, tuple)):
        for index, item in enumerate(out):
            if _has_no_data(item):
                part = functools.partial(_part, made, index)
                _note(item, Known(part, made.assumptions))


def _is_real(tensor: torch.Tensor) -> bool:
    """Whether it has data, on the host."""
    return not isinstance(tensor, FakeTensor) and tensor.device.type == "cpu"


def _has_no_data(value: Any) -> bool:
    """Whether it is a simulated tensor, or one on the meta device."""
    return isinstance(value, FakeTensor) or (isinstance(value, torch.Tensor) and value.is_meta)


def _is_unknown(args: Any) -> bool:
    """Whether the first argument tells already that not all are known: most do."""
    return bool(args) and _has_no_data(args[0]) and known_of(args[0]) is None


def _made(func: Any, args: Any, kwargs: Any, inputs: list[Any], out: Any) -> Known | None:
    if func in _FILLED and _has_no_data(out):
        fill = _FILLED[func]
        value = args[-1] if fill is _FULL else fill
        return Known(functools.partial(_filled, out.shape, value, out.dtype))
    if func is _ATEN.empty.memory_format:
        return _to_be_filled(out)
    if func in _RANGES:
        return Known(functools.partial(_execute, func, args, kwargs))
    if func in _CHANCE and out.numel() == 1:
        made = functools.partial(_filled, out.shape, 0.5, out.dtype)
        return Known(made, frozenset([_ASSUMED_CHANCE]))
    if func is _ATEN.randperm.default:
        return Known(functools.partial(torch.arange, args[0]), frozenset([_ASSUMED_SAMPLE]))
    if _UNCERTAIN in func.tags or not (inputs or _is_constant(func, args)):
        return None
    if all(known_of(t) is not None for t in inputs):
        make = functools.partial(_execute, func, _held(args), _held(kwargs))
        return Known(make, _all_assumptions(inputs))
    if func in _SORTS:
        dim = args[1] if len(args) > 1 else kwargs.get("dim", -1)
        in_order = functools.partial(_in_order, tuple(args[0].shape), dim)
        return Known(in_order, frozenset([_ASSUMED_ORDER]))
    if func in routing.CHOICES:
        return Known(*routing.CHOICES[func](*args, **kwargs))
    return None


def _to_be_filled(out: Tensor) -> Known | None:
    """Offsets and counts are filled in on the host, one after another."""
    if out.device.type != "cpu" or out.dtype.is_floating_point:
        return None
    return Known(functools.partial(_filled, out.shape, 0, out.dtype))


def _follow_write(
    func: Any, args: Any, kwargs: Any, inputs: list[Any], writes: tuple[int, ...]
) -> None:
    """A tensor written to in place: its new values where all is known, else nothing any more."""
    target: Any = args[0] if writes == (0,) and args else None
    if _has_no_data(target):
        others = [t for t in inputs if t is not target]
        if target._is_view() and _write_part(func, args, kwargs, target, others):
            return
        if _write_whole(func, args, kwargs, target, others):
            if target._is_view() and target._base is not None:
                _forget(target._base)
            return
    for index in writes:
        for written in _tensors(args[index] if index < len(args) else kwargs):
            _forget(written)
            if written._is_view() and written._base is not None:
                _forget(written._base)


def _write_whole(func: Any, args: Any, kwargs: Any, target: Tensor, others: list[Any]) -> bool:
    """Note what a tensor holds now, by itself. False where that is not known."""
    anew = func in _OVERWRITING
    sources = others if anew else [target, *others]
    if _UNCERTAIN in func.tags:
        return False
    if not sources and func is _ATEN.fill_.Scalar:
        _note(target, Known(functools.partial(_filled, target.shape, args[1], target.dtype)))
        return True
    if not sources or not all(known_of(t) is not None for t in sources):
        return False
    held = _held(args)
    if anew:
        held = (Known(functools.partial(_filled, target.shape, 0, target.dtype)), *held[1:])
    make = functools.partial(_execute_on_copy, func, held, _held(kwargs))
    _note(target, Known(make, _all_assumptions(sources)))
    return True


def _write_part(func: Any, args: Any, kwargs: Any, view: Tensor, others: list[Any]) -> bool:
    """Note what the base of a view and the view hold now. False where that is not known."""
    base: Any = view._base
    sources = [base, *others]
    if (
        _UNCERTAIN in func.tags
        or not base.is_contiguous()
        or not all(known_of(t) is not None for t in sources)
    ):
        return False
    place = tuple(view.shape), view.stride(), int(view.storage_offset())
    held = (_held(base), *_held(args)[1:])
    make = functools.partial(_execute_on_part, func, place, held, _held(kwargs))
    whole = Known(make, _all_assumptions(sources))
    _note(base, whole)
    _note(view, Known(functools.partial(_part_at, place, whole), whole.assumptions))
    return True


@functools.cache
def _writes(func: Any) -> tuple[int, ...]:
    """Positions of the arguments that an operator writes to."""
    arguments = func._schema.arguments
    return tuple(i for i, a in enumerate(arguments) if a.alias_info and a.alias_info.is_write)


def _note(tensor: Tensor, known: Known) -> None:
    if tensor.numel() * tensor.element_size() <= _MOST_BYTES:
        setattr(tensor, _ATTRIBUTE, known)
    else:
        _forget(tensor)


def _forget(tensor: Any) -> None:
    if known_of(tensor) is not None:
        setattr(tensor, _ATTRIBUTE, None)


def _all_assumptions(inputs: Iterable[Any]) -> Sentences:
    found = (known_of(t) for t in inputs)
    return frozenset().union(*(known.assumptions for known in found if known is not None))


def _tensors(value: Any) -> Iterator[Any]:
    """The tensors in arguments."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _is_constant(func: Any, args: Any) -> bool:
    """Whether the result follows from numbers alone, as that of `torch.div(512, 64)` does."""
    return not func.__name__.startswith("empty") and not any(
        isinstance(argument, torch.Tensor) and argument.is_meta for argument in args
    )


def _held(value: Any) -> Any:
    """Arguments with what is known in place of tensors, which they would keep alive."""
    if _has_no_data(value):
        return known_of(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_held, value)) if type(value) in (list, tuple) else value
    if isinstance(value, dict):
        return {name: _held(item) for name, item in value.items()}
    return value


def _on_host(value: Any) -> Any:
    if isinstance(value, Known):
        found = value.value()
        if found is None:
            raise ValueError("not known")
        return found
    if isinstance(value, torch.device):
        return torch.device("cpu")
    if type(value) in (list, tuple):
        return type(value)(map(_on_host, value))
    if isinstance(value, dict):
        return {name: _on_host(item) for name, item in value.items()}
    return value


def _execute(func: Any, args: Any, kwargs: Any) -> Any:
    return func(*_on_host(args), **_on_host(kwargs))


def _execute_on_copy(func: Any, args: Any, kwargs: Any) -> Any:
    target, *rest = _on_host(args)
    return func(target.clone(), *rest, **_on_host(kwargs))


def _execute_on_part(func: Any, place: Any, args: Any, kwargs: Any) -> Any:
    base, *rest = _on_host(args)
    whole = base.clone(memory_format=torch.contiguous_format)
    func(whole.as_strided(*place), *rest, **_on_host(kwargs))
    return whole


def _part_at(place: Any, whole: Known) -> Any:
    return _on_host(whole).as_strided(*place)


def _in_order(shape: tuple[int, ...], dim: int) -> tuple[None, torch.Tensor]:
    """What sorting gives: values, which stay unknown, and indices."""
    if not shape:
        return None, torch.zeros((), dtype=torch.int64)
    along = [1] * len(shape)
    along[dim] = shape[dim]
    return None, torch.arange(shape[dim]).view(along).expand(shape).contiguous()


def _filled(shape: torch.Size, value: Any, dtype: torch.dtype) -> torch.Tensor:
    return torch.full(tuple(shape), value, dtype=dtype)


def _part(known: Known, index: int) -> Any:
    values = known.value()
    return None if values is None else values[index]
