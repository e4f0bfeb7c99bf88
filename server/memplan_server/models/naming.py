"""Names near to one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

__all__ = ["nearest"]

_HOW_MANY = 3


def nearest(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """At most three of `names` (`library/model`) that `name` may have been meant to be.

    The same model in another library comes first.
    """
    library, _, model = name.rpartition("/")
    same = [known for known in names if known.partition("/")[2] == model]
    within = [known for known in names if known.startswith(f"{library}/")] or names
    near = difflib.get_close_matches(name, within, n=_HOW_MANY)
    return tuple(dict.fromkeys([*same, *near]))[:_HOW_MANY]
