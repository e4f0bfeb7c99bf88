"""The autocast lists are PyTorch's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from memplan_server.simulate import autocast, device
from memplan_server.simulate.recorder import Recorder

HEADER = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"


def published(macro: str) -> set[str]:
    """Overloads for named dimensions, which PyTorch had up to 2.11, are left out."""
    body = re.search(rf"#define {macro}\(_\)(.*?)\n\n", HEADER.read_text(), re.DOTALL)
    assert body is not None
    entries = re.findall(r"_\((\w+)(?:, (\w+))?\)", body.group(1))
    unnamed = [(name, overload) for name, overload in entries if "imname" not in overload]
    return {f"{name}.{overload}" if overload else name for name, overload in unnamed}


@pytest.mark.parametrize(
    ("macro", "names"),
    [
        ("AT_FORALL_LOWER_PRECISION_FP", autocast.LOWER_PRECISION),
        ("AT_FORALL_FP32", autocast.FLOAT32),
        ("AT_FORALL_FP32_SET_OPT_DTYPE", autocast.SET_DTYPE),
        ("AT_FORALL_PROMOTE", autocast.PROMOTE),
    ],
)
def test_lists_are_those_of_the_installed_torch(macro: str, names: list[str]) -> None:
    casts = torch._C._dispatch_has_kernel_for_dispatch_key
    assert {name for name in names if casts(f"aten::{name}", "AutocastCUDA")} == published(macro)


def test_what_the_installed_torch_does_not_cast_is_not_cast() -> None:
    simulated = device.register()
    casts = torch._C._dispatch_has_kernel_for_dispatch_key("aten::rms_norm", "AutocastCUDA")
    with Recorder(simulated), torch.autocast(simulated.type, dtype=torch.bfloat16):
        x = torch.ones(2, 8, device=simulated, dtype=torch.bfloat16)
        normed = torch.nn.functional.rms_norm(x, (8,))
    assert normed.dtype == (torch.float32 if casts else torch.bfloat16)
