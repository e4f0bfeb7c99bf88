"""The autocast lists are PyTorch's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from memplan_server.simulate import autocast

HEADER = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"


def published(macro: str) -> set[str]:
    body = re.search(rf"#define {macro}\(_\)(.*?)\n\n", HEADER.read_text(), re.DOTALL)
    assert body is not None
    entries = re.findall(r"_\((\w+)(?:, (\w+))?\)", body.group(1))
    return {f"{name}.{overload}" if overload else name for name, overload in entries}


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
    assert set(names) == published(macro)
