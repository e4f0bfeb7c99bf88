"""Sizes as people read them."""

from __future__ import annotations

__all__ = ["gib"]


def gib(size: int) -> str:
    """`gib(1610612736) == "1.50 GiB"`."""
    return f"{size / (1 << 30):,.2f} GiB"
