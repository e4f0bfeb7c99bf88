"""Bytes of the buffers that PyTorch's own kernels take while they run.

On an H200, sums and gradients of embeddings in real training steps took exactly so much
(`tests/server/gpus/test_buffers.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from memplan_server.timeline import Int64, Kernel

__all__ = ["Multiprocessors", "buffer_bytes"]

_WARP = 32
_MOST_THREADS = 512
_VALUES = 16, 256
"""Values for each thread: blocks of threads share one sum when each has the higher number, as many
of them as leave each the lower one."""
_ROWS_AT_ONCE = 10
_FEW_INDICES = 3072
_FEW_ROWS = 128
"""Measured: none with 2 and 32 rows, some with 30,522 and more. Between them it is not known."""


@dataclass(frozen=True, slots=True)
class Multiprocessors:
    """What decides over how many blocks of threads work is spread."""

    count: int
    threads: int
    """The most that one can hold."""


def buffer_bytes(kernel: Kernel, count: Int64, on: Multiprocessors) -> Int64:
    """[n] bytes for [n] numbers of what the kernel leaves open; 0 where it needs none."""
    outputs = count if kernel.outputs is None else np.full_like(count, kernel.outputs)
    rows = count if kernel.rows is None else np.full_like(count, kernel.rows)
    if kernel.name == "embedding":
        return _embedding(kernel, outputs, rows)
    assert kernel.name in ("sum", "semaphores")
    return _sum(kernel, outputs, rows, on)


def _sum(kernel: Kernel, outputs: Int64, rows: Int64, on: Multiprocessors) -> Int64:
    """Partial sums of the blocks of threads that share outputs, or the semaphores of these blocks.

    Source: `setReduceConfig` and, of `ReduceConfig`, `set_block_dimension`, `global_memory_size`
    and `semaphore_size` in aten/src/ATen/native/cuda/Reduce.cuh.
    """
    most = _MOST_THREADS // kernel.at_once
    columns = np.maximum(1, outputs // kernel.at_once)
    wide, high = np.minimum(most, _powers(columns)), np.minimum(most, _powers(rows))
    height = np.minimum(high, most // np.minimum(wide, _WARP))
    width = np.minimum(wide, most // height)
    values = -(-rows // height)
    blocks = -(-columns // width)
    at_once = on.count * (on.threads // (width * height))
    sharing = np.minimum(-(-at_once // blocks), -(-values // _VALUES[0]))
    sharing = np.maximum(sharing, -(-values // _VALUES[1]))
    shared = (values >= _VALUES[1]) & (blocks <= at_once) & (sharing > 1)
    each = outputs * kernel.at_once * width * sharing if kernel.name == "sum" else blocks
    return np.where(shared, kernel.itemsize * each, 0)


def _powers(numbers: Int64) -> Int64:
    """The largest powers of two up to them."""
    return np.int64(1) << np.log2(np.maximum(1, numbers)).astype(np.int64)


def _embedding(kernel: Kernel, outputs: Int64, indices: Int64) -> Int64:
    """A row for each ten indices and for each index that may occur.

    Source: `embedding_backward_cuda_kernel` in
    aten/src/ATen/native/cuda/EmbeddingBackwardKernel.cu (`NROWS_PER_THREAD`) and
    `embedding_dense_backward_cuda` in Embedding.cu, which does without for few indices.
    """
    rows = indices // _ROWS_AT_ONCE + np.minimum(indices, outputs)
    needed = (indices > _FEW_INDICES) & (outputs > _FEW_ROWS)
    return np.where(needed, rows * kernel.at_once * kernel.itemsize, 0)
