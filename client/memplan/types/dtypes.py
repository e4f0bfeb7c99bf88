"""Element types.

Counterpart of a part of `proto/memplan/v1/job.proto`: same names, same meaning.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["DataType"]


class DataType(StrEnum):
    """Element types, by PyTorch's names."""

    UNSPECIFIED = "unspecified"
    """FLOAT32."""
    FLOAT32 = "float32"
    """4 bytes."""
    FLOAT16 = "float16"
    """2 bytes."""
    BFLOAT16 = "bfloat16"
    """2 bytes."""
    INT64 = "int64"
    """8 bytes: token and class indices."""
    INT32 = "int32"
    """4 bytes."""
    UINT8 = "uint8"
    """1 byte."""
    BOOL = "bool"
    """1 byte: masks."""
    FLOAT64 = "float64"
    """8 bytes."""
    INT16 = "int16"
    """2 bytes."""
    INT8 = "int8"
    """1 byte."""
    COMPLEX64 = "complex64"
    """8 bytes: two float32."""
    COMPLEX128 = "complex128"
    """16 bytes: two float64."""
