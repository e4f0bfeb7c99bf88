"""Requests as messages, and answers back, with what cannot be converted as `memplan.errors`."""

from __future__ import annotations

from typing import Any

from memplan.errors import InvalidRequestError, ServerError, Violation
from memplan.wire import WireError, from_proto, to_proto

__all__ = ["to_answer", "to_message"]


def to_message(request: object) -> Any:
    """The message of a request. Raises InvalidRequestError."""
    try:
        return to_proto(request)
    except WireError as error:
        violations = [Violation(field, text) for field, text in error.violations]
        raise InvalidRequestError(violations=violations) from error


def to_answer(message: Any) -> Any:
    """The answer that a message holds. Raises ServerError."""
    try:
        return from_proto(message)
    except WireError as error:
        hint = "It may be newer than this client: upgrade memplan."
        raise ServerError(f"The server's answer cannot be read: {error}. {hint}") from error
