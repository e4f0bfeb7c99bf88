"""The functions of cuDNN's backend API that `workspaces.backend` calls, in Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from workspaces.backend import Attribute, Kind, Library
from workspaces.heuristics import Mode

Proposals = Callable[["Made"], list[tuple[int, int]]]
"""From the asked heuristics to engines and workspaces."""


@dataclass
class Made:
    """A descriptor and what was set on it: a list for each attribute."""

    kind: Kind
    values: dict[Attribute, list[Any]] = field(default_factory=dict)
    finalized: bool = False


class FakeCudnn:
    """Descriptors by address; proposals from a function."""

    def __init__(self, proposals: Proposals, *, number: int = 91900) -> None:
        self.alive: dict[int, Made] = {}
        self.made: list[Made] = []
        self.refused: Kind | None = None
        """Kind that cannot be finalized."""
        self._proposals = proposals
        functions = SimpleNamespace()
        for name, function in (
            ("cudnnGetVersion", lambda: number),
            ("cudnnGetErrorString", lambda status: b"CUDNN_STATUS_BAD_PARAM"),
            ("cudnnGetLastErrorString", self._message),
            ("cudnnBackendCreateDescriptor", self._create),
            ("cudnnBackendDestroyDescriptor", lambda pointer: self.alive.pop(pointer.value) and 0),
            ("cudnnBackendSetAttribute", self._set),
            ("cudnnBackendGetAttribute", self._get),
            ("cudnnBackendFinalize", self._finalize),
        ):
            setattr(functions, name, _Function(function))
        self.functions = functions

    def library(self) -> Library:
        """What would have loaded it."""
        return Library(self.functions)

    def of(self, kind: Kind) -> list[Made]:
        """Every descriptor made of a kind, in order."""
        return [made for made in self.made if made.kind is kind]

    def _message(self, into: Any, room: Any) -> None:
        into.value = b"the stride is 0"

    def _create(self, kind: Kind, reference: Any) -> int:
        made = Made(kind)
        self.made.append(made)
        reference._obj.value = address = 16 * len(self.made)
        self.alive[address] = made
        return 0

    def _finalize(self, pointer: ctypes.c_void_p) -> int:
        made = self._at(pointer.value)
        made.finalized = made.kind is not self.refused
        return 0 if made.finalized else 2000

    def _set(self, pointer: Any, attribute: Attribute, of: int, count: Any, values: Any) -> int:
        found = list(values._obj)
        assert len(found) == count.value
        made = self._at(pointer.value)
        assert not made.finalized
        made.values[attribute] = found
        return 0

    def _get(
        self, pointer: Any, attribute: Attribute, of: int, room: Any, found: Any, into: Any
    ) -> int:
        made = self._at(pointer.value)
        if attribute is Attribute.HEURISTICS_RESULTS:
            assert made.finalized
            self._results(made, found, into)
        elif attribute is Attribute.CONFIGURATION_ENGINE:
            self._at(into[0]).values = made.values
        elif attribute is Attribute.DEVICE_JSON:
            self._text(made, found, into)
        else:
            into._obj.value = made.values[attribute][0]
        return 0

    def _results(self, asked: Made, found: Any, into: Any) -> None:
        proposed = self._proposals(asked)
        found._obj.value = len(proposed)
        if into is None:
            return
        found._obj.value = min(len(into), len(proposed))
        for address, (engine, workspace) in zip(into, proposed, strict=False):
            values = self._at(address).values
            values[Attribute.ENGINE_INDEX] = [engine]
            values[Attribute.CONFIGURATION_WORKSPACE_SIZE] = [workspace]

    def _text(self, made: Made, found: Any, into: Any) -> None:
        given = made.values.get(Attribute.DEVICE_JSON)
        text = b"".join(given) if given else b'{"deviceVer": 900}'
        found._obj.value = len(text)
        if into is not None:
            into.value = text

    def device(self, asked: Made) -> str:
        """The JSON of the device that heuristics are asked about."""
        (address,) = asked.values[Attribute.HEURISTICS_DEVICE]
        return b"".join(self._at(address).values[Attribute.DEVICE_JSON]).decode()

    def mode(self, asked: Made) -> Mode:
        """The mode of heuristics."""
        return Mode(asked.values[Attribute.HEURISTICS_MODE][0])

    def _at(self, address: int | None) -> Made:
        assert address is not None
        return self.alive[address]


class _Function:
    """Takes the attributes that a function of ctypes has."""

    restype: Any = ctypes.c_int

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)
