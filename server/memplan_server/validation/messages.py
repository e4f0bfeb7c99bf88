"""From bytes to a request, whatever the bytes are.

A message is looked over before it is converted: one with absurdly many entries is refused at once,
and enum numbers that this version does not know are reported and taken out, so that the other rules
can report theirs in the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from memplan.wire import WireError, from_proto
from memplan_server.errors import InvalidJob, Violation
from memplan_server.validation.graph import LIMITS, MOST_ITEMS
from memplan_server.validation.jobs import MOST_GROUPS

__all__ = ["read"]

MOST_ENTRIES = 2_000
"""Entries of one list or mapping. No rule allows more, but for those below."""
ENTRIES = {f"memplan.v1.Graph.{name}": most for name, most in LIMITS.items()} | {
    "memplan.v1.GraphArgumentList.items": MOST_ITEMS,
    "memplan.v1.Optimizer.groups": MOST_GROUPS,
}
"""The same for the fields whose rules allow another number."""
MOST_VALUES = 600_000
"""Values of a whole request: 50,000 nodes of a graph with four arguments each stay below."""


def read(message_class: type[Message], data: bytes) -> tuple[Any, list[Violation]]:
    """The request that `data` stands for, and the violations found on the way.

    Raises InvalidJob when there is no request to go on with: bytes that are no such message, or
    too many values.
    """
    message = message_class()
    try:
        message.ParseFromString(data)
    except DecodeError:
        name = message.DESCRIPTOR.full_name
        raise InvalidJob(Violation("", f"The request is not a valid {name} message.")) from None
    violations = list(_Walk().violations(message, ""))
    try:
        return from_proto(message), violations
    except WireError as error:
        raise InvalidJob(*violations, *(Violation(*v) for v in error.violations)) from None


class _Walk:
    """One pass over a message and everything in it."""

    def __init__(self) -> None:
        self._left = MOST_VALUES

    def violations(self, message: Message, path: str) -> Iterator[Violation]:
        """Unknown enum numbers, which are cleared. Raises InvalidJob for too many values."""
        for field, value in message.ListFields():
            where = f"{path}.{field.name}" if path else field.name
            if field.is_repeated:
                yield from self._repeated(field, value, where)
            elif field.message_type is not None:
                self._count(where)
                yield from self.violations(value, where)
            elif field.enum_type is not None and value not in field.enum_type.values_by_number:
                message.ClearField(field.name)
                yield Violation(where, f"{value} is no {field.enum_type.name} that is known here.")

    def _repeated(self, field: FieldDescriptor, value: Any, path: str) -> Iterator[Violation]:
        most = ENTRIES.get(field.full_name, MOST_ENTRIES)
        if len(value) > most:
            found = f"has {len(value):,} entries; no more than {most:,} are allowed."
            raise InvalidJob(Violation(path, found))
        self._count(path, len(value))
        message = field.message_type
        if message is None:
            return
        if message.GetOptions().map_entry:
            if message.fields_by_name["value"].message_type is not None:
                for item in value.values():
                    yield from self.violations(item, path)
            return
        for index, item in enumerate(value):
            yield from self.violations(item, f"{path}[{index}]")

    def _count(self, path: str, values: int = 1) -> None:
        self._left -= values
        if self._left < 0:
            found = f"The request has more than {MOST_VALUES:,} values; the last one read is here."
            raise InvalidJob(Violation(path, found))
