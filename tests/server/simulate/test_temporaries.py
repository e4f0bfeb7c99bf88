"""Copies and buffers of CUDA's kernels: made where they are needed, and gone afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from memplan_server.simulate import attention as simulated_attention
from memplan_server.simulate import device
from memplan_server.simulate.recorder import Recorder
from memplan_server.timeline import Phase

Function = Callable[[torch.Tensor], torch.Tensor]


def layer_norm(x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:])


def softmax(x: torch.Tensor) -> torch.Tensor:
    return x.softmax(-1)


def log_softmax(x: torch.Tensor) -> torch.Tensor:
    return x.log_softmax(-1)


def executed(function: Function, shape: tuple[int, ...], *, permuted: bool) -> list[list[int]]:
    """Bytes of the allocations in forward, and in backward, that did not outlive it."""
    recorder = Recorder(device.register())
    temporary: list[list[int]] = []
    with recorder:
        x = torch.empty(shape, device=device.register()).requires_grad_()
        seen = x.transpose(0, 1) if permuted else x
        upper = torch.empty(seen.shape, device=device.register())
        upper = upper.transpose(0, 1).contiguous().transpose(0, 1) if permuted else upper
        events = recorder.recording.events

        def ended(start: int) -> list[int]:
            done = events[start:]
            made = [e for e in done if e >= 0 and ~e in done]
            return sorted(recorder.recording.storages[e].nbytes for e in made)

        start = len(events)
        result = function(seen)
        temporary.append(ended(start))
        recorder.enter(Phase.BACKWARD, 0)
        start = len(events)
        gradient = torch.autograd.grad(result, x, upper)
        temporary.append(ended(start))
        assert gradient[0].shape == x.shape
    return temporary


@pytest.mark.parametrize(
    ("function", "copies"), [(layer_norm, (1, 2)), (softmax, (1, 1)), (log_softmax, (1, 1))]
)
def test_what_is_not_contiguous_is_copied(function: Function, copies: tuple[int, int]) -> None:
    """The gradient of softmax also multiplies gradient and output."""
    shape, size = (6, 4, 8), 6 * 4 * 8 * 4
    products = int(function is softmax)
    forward, backward = executed(function, shape, permuted=True)
    assert (forward.count(size), backward.count(size) - products) == copies
    forward, backward = executed(function, shape, permuted=False)
    assert forward == []
    assert backward.count(size) == products


def attention_backward(batch: int, heads: int, key_heads: int, length: int, dim: int) -> list[int]:
    """Sizes of everything that attention and its gradient allocate, in bfloat16."""
    simulated_attention.target((8, 0))  # flash attention
    recorder = Recorder(device.register())
    with recorder:
        q, k, v = (
            torch.empty(
                batch, count, length, dim, dtype=torch.bfloat16, device=device.register()
            ).requires_grad_()
            for count in (heads, key_heads, key_heads)
        )
        out = functional.scaled_dot_product_attention(q, k, v, enable_gqa=heads != key_heads)
        out.sum().backward()
    return [s.nbytes for s in recorder.recording.storages]


@pytest.mark.parametrize(("head_dim", "rounded"), [(64, 64), (80, 96), (160, 192), (192, 192)])
def test_gradients_of_attention_have_buffers_of_their_own(head_dim: int, rounded: int) -> None:
    sizes = attention_backward(2, 3, 3, 100, head_dim)
    rows = 2 * 3 * 128  # lengths are rounded up
    assert rows * 4 in sizes
    assert rows * rounded * 4 in sizes


def test_gradients_of_shared_keys_are_made_for_each_head_first() -> None:
    of_all_heads = 2 * 8 * 100 * 64 * 2
    plain = attention_backward(2, 8, 8, 100, 64)
    grouped = attention_backward(2, 8, 2, 100, 64)
    # Keys, values and their gradients are smaller, and two gradients for all heads are added.
    assert grouped.count(of_all_heads // 4) == 4
    assert grouped.count(of_all_heads) == plain.count(of_all_heads) - 4 + 2


@pytest.mark.parametrize("columns", [1, 8])
def test_scattering_by_a_mask_sums_it_and_copies_one_that_is_expanded(columns: int) -> None:
    rows, on_device = (4, 16), device.register()
    recorder = Recorder(on_device)
    with recorder:
        embedded = torch.empty(*rows, 8, device=on_device)
        mask = torch.empty(*rows, columns, dtype=torch.bool, device=on_device).expand(*rows, 8)
        start = len(recorder.recording.storages)
        embedded.masked_scatter(mask, torch.empty(4, 8, device=on_device))
    sizes = [storage.nbytes for storage in recorder.recording.storages[start:]]
    assert sizes.count(4 * 16 * 8 * 8) == 1
    assert sizes.count(4 * 16 * 8) == (columns == 1)
