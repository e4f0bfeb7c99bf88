"""Pages of sorted names, and the tokens between them.

A token says after which name the next page begins, so pages stay right when names come and go
between two calls. It holds for the listing and the filter it was made for.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from memplan_server.errors import InvalidJob, Violation

__all__ = ["Page", "check_token", "page", "token_after"]

DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the names, and how to get the next ones."""

    names: tuple[str, ...]
    next_token: str
    """Empty on the last page."""


def page(listing: str, names: Sequence[str], size: int, token: str, filter_text: str) -> Page:
    """The page of sorted `names` that `token` stands for; the first one for an empty token.

    Raises InvalidJob for a token that this listing with this filter did not give.
    """
    after = check_token(listing, token, filter_text)
    rest = [name for name in names if name > after]
    chosen = tuple(rest[:size])
    more = len(rest) > size
    return Page(chosen, token_after(listing, chosen[-1], filter_text) if more else "")


def check_token(listing: str, token: str, filter_text: str) -> str:
    """The name that a token continues after; empty for an empty token. Raises InvalidJob."""
    if not token:
        return ""
    try:
        data = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        after = data[DIGEST_BYTES:].decode()
    except ValueError:
        after = ""
    if not after or token_after(listing, after, filter_text) != token:
        wrong = "is not a next_page_token that this listing gave for this filter."
        raise InvalidJob(Violation("page_token", wrong))
    return after


def token_after(listing: str, after: str, filter_text: str) -> str:
    """The token of the page that begins after the entry named `after`."""
    name = after.encode()
    checked = hashlib.sha256(b"\0".join((listing.encode(), filter_text.encode(), name))).digest()
    return base64.urlsafe_b64encode(checked[:DIGEST_BYTES] + name).decode()
