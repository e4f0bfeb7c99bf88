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


def attention_on_hopper(
    dtype: torch.dtype, shape: tuple[int, ...], key_heads: int, *, trained_mask: bool = False
) -> tuple[list[int], list[int]]:
    """Sizes that attention and its gradient allocate, of [batch, length, heads, dim] turned."""
    simulated_attention.target((9, 0))
    on_device = device.register()
    recorder = Recorder(on_device)
    batch, heads, length, dim = shape
    with recorder:
        query, key, value = (
            torch.empty(batch, length, count, dim, dtype=dtype, device=on_device)
            .transpose(1, 2)
            .requires_grad_()
            for count in (heads, key_heads, key_heads)
        )
        mask = torch.empty(1, heads, length, length, dtype=dtype, device=on_device)
        mask = mask.requires_grad_() if trained_mask else None
        storages = recorder.recording.storages
        start = len(storages)
        out = functional.scaled_dot_product_attention(
            query, key, value, mask, enable_gqa=heads != key_heads
        )
        upper = torch.empty_like(out)
        middle = len(storages)
        recorder.enter(Phase.BACKWARD, 0)
        torch.autograd.grad(out, [t for t in (query, key, value, mask) if t is not None], upper)
        sizes = [storage.nbytes for storage in storages]
    return sizes[start : middle - 1], sizes[middle:]


@pytest.mark.parametrize(
    ("shape", "key_heads", "forward", "buffer"),
    [
        ((4, 8, 512, 64), 8, [8, 8, 2_097_152, 65_536, 256], 4_260_096),
        ((4, 8, 197, 64), 8, [8, 8, 806_912, 25_216, 256], 1_639_296),
        ((4, 8, 512, 64), 2, [8, 8, 2_097_152, 65_536, 256], 8_454_400),
        ((4, 8, 512, 128), 8, [8, 8, 4_194_304, 65_536, 256], 8_454_400),
        ((2, 16, 2048, 128), 16, [8, 8, 16_777_216, 262_144, 256], 33_816_832),
    ],
)
def test_cudnn_attention_as_measured(
    shape: tuple[int, ...], key_heads: int, forward: list[int], buffer: int
) -> None:
    """On an H200 with PyTorch 2.11 and cuDNN 9.19."""
    first, second = attention_on_hopper(torch.float16, shape, key_heads)
    assert first == forward
    assert second[-1] == buffer


def test_efficient_attention_with_a_trained_mask_as_measured() -> None:
    first, second = attention_on_hopper(torch.float16, (4, 8, 512, 64), 8, trained_mask=True)
    assert first == [2_097_152, 65_536]
    assert second[:6] == [2_097_152] * 3 + [16_777_216, 65_536, 4_198_400]


def test_dropout_makes_its_mask_first() -> None:
    on_device = device.register()
    recorder = Recorder(on_device)
    with recorder:
        x = torch.empty(100, device=on_device)
        functional.dropout(x, 0.1, training=True)
    assert [s.nbytes for s in recorder.recording.storages] == [400, 100, 400]


def test_two_dimensions_are_rolled_one_after_the_other() -> None:
    on_device = device.register()
    recorder = Recorder(on_device)
    with recorder:
        rolled = torch.empty(4, 8, device=on_device).roll((1, 2), (0, 1))
    assert rolled.shape == (4, 8)
    assert [s.nbytes for s in recorder.recording.storages] == [128] * 3


def test_a_bias_takes_a_workspace_of_cublaslt_besides() -> None:
    on_device = device.register()
    recorder = Recorder(on_device)
    with recorder:
        x, weight, bias = (torch.empty(*s, device=on_device) for s in ((3, 4), (5, 4), (5,)))
        functional.linear(x, weight)
        functional.linear(x, weight, bias)
        functional.linear(x, weight, bias)
    names = [s.workspace for s in recorder.recording.storages if s.workspace]
    assert names == ["cublas", "cublaslt"]
