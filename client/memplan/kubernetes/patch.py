"""What was changed, as a JSON Patch (RFC 6902).

Only additions and replacements: what is merged into an object takes nothing away, and a patch of
these two is read by people in audit logs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["difference"]


def difference(before: Any, after: Any, path: str = "") -> list[dict[str, Any]]:
    """The operations that make `after` of `before`; no member of an object may be gone in it."""
    return list(_operations(before, after, path))


def _operations(before: Any, after: Any, path: str) -> Iterator[dict[str, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping) and before.keys() <= after.keys():
        for key, value in after.items():
            inner = f"{path}/{_escaped(key)}"
            if key in before:
                yield from _operations(before[key], value, inner)
            else:
                yield {"op": "add", "path": inner, "value": value}
    elif isinstance(before, list) and isinstance(after, list) and len(before) <= len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from _operations(old, new, f"{path}/{index}")
        for value in after[len(before) :]:
            yield {"op": "add", "path": f"{path}/-", "value": value}
    elif type(before) is not type(after) or before != after:  # 1, 1.0 and true are equal here
        yield {"op": "replace", "path": path, "value": after}


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
