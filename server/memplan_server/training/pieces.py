"""Tensors of which other ranks may have the rest."""

from __future__ import annotations

import torch

__all__ = ["local"]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What is here of a tensor: of a DTensor the piece of this rank."""
    piece: torch.Tensor = getattr(tensor, "_local_tensor", tensor)  # DTensor takes long to import
    return piece
