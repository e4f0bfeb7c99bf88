"""The attention kernel is the one that the target GPU would pick."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from jobs import catalog_job
from torch.nn import functional

from memplan.types import Precision
from memplan_server.simulate import device, worker
from memplan_server.simulate.attention import AttentionCall, choose
from memplan_server.simulate.recorder import Recorder
from memplan_server.timeline import Timeline

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
        ({"masked": True}, (9, 0), "cudnn"),
        ({"masked": True, "mask_requires_grad": True}, (9, 0), "efficient"),
        ({"masked": True, "mask_has_rows": False}, (9, 0), "math"),
        ({"masked": True, "mask_has_rows": False}, (8, 0), "math"),
        ({"head_dim": 256, "value_head_dim": 256}, (9, 0), "cudnn"),
        ({"head_dim": 20, "value_head_dim": 20}, (9, 0), "flash"),
        ({"query_length": 1}, (9, 0), "flash"),
        ({"query_length": 1, "causal": True}, (9, 0), "efficient"),
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


def test_the_gradient_of_a_mask_keeps_the_padding_of_its_rows() -> None:
    """The second time the fake mode has the result in its cache, without what it is a slice of."""
    simulated = device.register()
    recorder = Recorder(simulated)
    with recorder:
        shapes = [(2, 4, 49, 32)] * 3 + [(1, 4, 49, 49)]
        tensors = [torch.empty(s, device=simulated, requires_grad=True) for s in shapes]
        for _ in range(2):
            query, key, value, mask = tensors
            out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            torch.autograd.grad(out, tensors, torch.empty_like(out))
    sizes = [s.nbytes for s in recorder.recording.storages]
    assert sizes.count(2 * 4 * 49 * 64 * 4) == 2


def test_models_with_a_bias_in_attention_have_a_line() -> None:
    job = catalog_job("timm/beit_base_patch16_224", {"depth": 2})
    assert Timeline.from_bytes(worker.trace(job, (8, 0))).affine


def test_a_trained_bias_has_the_same_kernel_on_hopper() -> None:
    """What PyTorch prefers there has no gradient of the mask."""
    plain = catalog_job("timm/beit_base_patch16_224", {"depth": 2})
    job = replace(plain, precision=Precision.AMP_BF16)
    hopper, ampere = (Timeline.from_bytes(worker.trace(job, gpu)) for gpu in ((9, 0), (8, 0)))
    assert {(8, 0), (9, 0)} <= set(hopper.kernel_classes)
    assert hopper.kernel_classes == ampere.kernel_classes
    assert ampere.events.tolist() == hopper.events.tolist()
