"""The attention kernel is the one that the target GPU would pick."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from memplan_server.simulate.attention import AttentionCall, choose

PLAIN = AttentionCall(
    dtype=torch.bfloat16,
    head_dim=64,
    value_head_dim=64,
    query_length=512,
    key_length=512,
    grouped=False,
    masked=False,
    causal=False,
    dropout=True,
    requires_grad=True,
)


@pytest.mark.parametrize(
    ("change", "gpu", "kernel"),
    [
        ({}, (8, 0), "flash"),
        ({}, (8, 9), "flash"),
        ({}, (9, 0), "cudnn"),
        ({}, (7, 5), "math"),
        ({"dtype": torch.float16}, (7, 5), "efficient"),
        ({"dtype": torch.float32}, (9, 0), "efficient"),
        ({"masked": True}, (8, 0), "efficient"),
        ({"dtype": torch.float32, "grouped": True}, (8, 0), "math"),
        ({"head_dim": 208, "value_head_dim": 208}, (8, 0), "flash"),
        ({"head_dim": 208, "value_head_dim": 208}, (8, 6), "efficient"),
        ({"causal": True, "key_length": 640}, (8, 0), "efficient"),
        ({"dtype": torch.float32, "head_dim": 34, "value_head_dim": 34}, (8, 0), "math"),
        ({"dtype": torch.float32, "head_dim": 34, "value_head_dim": 34}, (7, 0), "efficient"),
    ],
)
def test_choice(change: dict[str, object], gpu: tuple[int, int], kernel: str) -> None:
    assert choose(replace(PLAIN, **change), gpu) == kernel  # type: ignore[arg-type]
