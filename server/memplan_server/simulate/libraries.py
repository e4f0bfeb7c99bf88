"""Libraries that behave differently when they find fake tensors, made to behave as on hardware."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

__all__ = ["unaware_of_fake_tensors"]


@contextlib.contextmanager
def unaware_of_fake_tensors() -> Iterator[None]:
    """Within, transformers takes fake tensors for real ones.

    `transformers.utils.import_utils.is_tracing` is true for fake tensors, and attention masks that
    training on hardware would leave out are then made: memory, and another attention kernel.
    """
    module = sys.modules.get("transformers.utils.import_utils")
    if module is None or not hasattr(module, "is_fake_tensor"):
        yield
        return
    original = module.is_fake_tensor
    module.is_fake_tensor = _never  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.is_fake_tensor = original  # type: ignore[attr-defined]


def _never(tensor: object) -> bool:
    return False
