"""Results of operators that have a shape function of memplan's own."""

from __future__ import annotations

import pytest
import torch
from torch._meta_registrations import meta_grouped_mm

from memplan.fakes.hardware import grouped_mm


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("a", "b", "grouped"),
    [
        ((64, 32), (4, 32, 48), True),
        ((64, 32), (4, 32, 44), True),
        ((64, 32), (32, 48), True),
        ((4, 64, 32), (32, 48), True),
        ((4, 64, 32), (4, 32, 48), False),
    ],
)
def test_grouped_products_have_pytorchs_shape_and_padding(
    a: tuple[int, ...], b: tuple[int, ...], grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")  # builds for the CPU do not pad
    offsets = meta(4, dtype=torch.int32) if grouped else None
    right = meta(*b).transpose(-2, -1).contiguous().transpose(-2, -1)
    expected = meta_grouped_mm(meta(*a), right, offsets)
    made = grouped_mm(meta(*a), right, offsets)
    assert made.shape == expected.shape
    assert made.stride() == expected.stride()
    single = grouped_mm(meta(*a, dtype=torch.float32), right.float(), offsets)
    assert single.shape == expected.shape
    assert single.dtype == torch.float32
