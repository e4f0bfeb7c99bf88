"""Buffers of PyTorch's kernels, as an H200 with PyTorch 2.11 took them in training steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan_server.gpus.buffers import Multiprocessors, buffer_bytes
from memplan_server.timeline import Kernel

H200 = Multiprocessors(count=132, threads=2048)


def taken(kernel: Kernel, count: int, on: Multiprocessors = H200) -> int:
    return int(buffer_bytes(kernel, np.array([count]), on)[0])


def summed(outputs: int, at_once: int = 4, name: str = "sum") -> Kernel:
    return Kernel(name=name, outputs=outputs, at_once=at_once, itemsize=4)


@pytest.mark.parametrize(
    ("rows", "outputs", "bytes_", "semaphores"),
    [
        (6304, 768, 38_928_384, 24),  # ViT-B/16, 32 images of 197 tokens
        (6304, 3072, 138_412_032, 96),
        (6304, 2304, 116_785_152, 72),
        (6304, 384, 19_464_192, 12),  # DeiT-S
        (6304, 1536, 77_856_768, 48),
        (4096, 768, 25_165_824, 24),  # GPT-2, 8 sequences of 512 tokens
        (4096, 3072, 100_663_296, 96),
        (4096, 2304, 75_497_472, 72),
        (784, 768, 0, 0),  # Swin-T's last stage, 16 images of 49 tokens
    ],
)
def test_sums_over_rows(rows: int, outputs: int, bytes_: int, semaphores: int) -> None:
    assert taken(summed(outputs), rows) == bytes_
    assert taken(summed(outputs, name="semaphores"), rows) == semaphores


def test_a_gpu_with_fewer_multiprocessors_shares_a_sum_among_fewer() -> None:
    a10 = Multiprocessors(count=72, threads=1536)
    assert taken(summed(3072), 65536, a10) < taken(summed(3072), 65536)


@pytest.mark.parametrize(
    ("indices", "rows", "width", "bytes_"),
    [
        (4096, 50257, 768, 13_839_360),  # GPT-2
        (8192, 32000, 1024, 36_909_056),  # Llama
        (4096, 32128, 512, 9_226_240),  # T5
        (512, 1024, 768, 0),  # positions of one sequence
        (4096, 2, 768, 0),  # BERT's token types
        (262144, 32, 8, 0),  # T5's relative positions
    ],
)
def test_gradients_of_embeddings(indices: int, rows: int, width: int, bytes_: int) -> None:
    kernel = Kernel(name="embedding", outputs=rows, at_once=width, itemsize=4)
    assert taken(kernel, indices) == bytes_


@given(
    st.integers(1, 100_000),
    st.lists(st.integers(1, 10_000_000), min_size=1, max_size=9),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([Multiprocessors(14, 2048), Multiprocessors(46, 1024), H200]),
)
def test_many_at_once_are_as_one_by_one(
    outputs: int, rows: list[int], at_once: int, on: Multiprocessors
) -> None:
    kernel = summed(outputs * at_once, at_once)
    together = buffer_bytes(kernel, np.array(rows), on)
    assert together.tolist() == [taken(kernel, count, on) for count in rows]
    assert (together >= 0).all()
    turned = Kernel(name="sum", outputs=None, rows=rows[0], at_once=at_once, itemsize=4)
    assert taken(turned, outputs * at_once, on) == together[0]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_result_of_fewer_elements_than_a_thread_works_on(count: int) -> None:
    """A batch of one, where two samples lay side by side."""
    kernel = Kernel(name="sum", outputs=None, rows=4096, at_once=4, itemsize=4)
    assert taken(kernel, count) <= 4096 * 4
