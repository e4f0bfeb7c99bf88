"""The timeline: every allocation and free of a training job, at any batch size.

The simulated GPU runs set-up and two training steps and writes down, in order, which storage is
allocated or freed; the second step then stands there once more. The size of each storage is affine
in the micro-batch size, or known for each, so one timeline holds for all of them:

    sizes = timeline.sizes(batch_size=32)       # bytes of each storage
    for event in timeline.events.tolist():      # s >= 0: storage s is allocated; ~s: it is freed
        ...

Needs numpy only; neither torch nor grpc.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import IntEnum
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "KERNEL",
    "Category",
    "Convolution",
    "Kernel",
    "Module",
    "Phase",
    "Recurrent",
    "Size",
    "Timeline",
]

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
_Size = Callable[[Int64], Int64]

_TUPLES = ("stream", "cache_emptied", "sized", "traced_batch_sizes", "traits", "assumptions")

KERNEL = "kernel"
"""`kernel/3` in `Timeline.workspaces`: of `Timeline.kernels`."""


class Category(IntEnum):
    """What a storage is for."""

    PARAMETER = 0
    GRADIENT = 1
    OPTIMIZER_STATE = 2
    BUFFER = 3
    INPUT = 4
    ACTIVATION = 5
    TEMPORARY = 6
    AUTOCAST_COPY = 7
    WORKSPACE = 8


class Phase(IntEnum):
    """Part of the job an event falls in."""

    SETUP = 0
    FORWARD = 1
    BACKWARD = 2
    OPTIMIZER_STEP = 3


@dataclass(frozen=True, slots=True)
class Module:
    """A module of the model."""

    path: str
    """As in `named_modules()`; empty for the model itself."""
    type: str
    """Class name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Convolution:
    """What cuDNN is told about a convolution, whatever the number of samples.

    Shapes leave the samples out; those of transposed convolutions are the other way round, as cuDNN
    has none.
    """

    direction: str
    """"fprop" (image to result), "dgrad" (result to image) or "wgrad" (both to kernel)."""
    dtype: str
    itemsize: int
    channels_last: bool
    groups: int
    image: tuple[int, ...]
    """Channels and lengths."""
    kernel: tuple[int, ...]
    """Result channels, image channels of one group, lengths."""
    result: tuple[int, ...]
    """Channels and lengths."""
    stride: tuple[int, ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """What decides, with a number that depends on the batch and the GPU, how large a buffer is."""

    name: str
    """"sum" over rows and its "semaphores", or "embedding": its gradient, from rows."""
    outputs: int | None
    """Elements of the sum; of an embedding, its rows. None where that is the number."""
    rows: int | None = None
    """That are summed up, or looked up. None where that is the number."""
    at_once: int
    """Elements of the sum that a thread works on; of an embedding, the length of a row."""
    itemsize: int
    """Bytes of an element while it is summed up."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a workspace, from some number of samples on."""

    samples: int = 0
    each: int = 0
    """Bytes for each sample."""
    fixed: int = 0
    """Bytes whatever their number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recurrent:
    """What cuDNN is told about an LSTM, GRU or RNN, whatever the number of samples; its rows."""

    cell: str
    """"lstm", "gru" or "rnn"."""
    dtype: str
    itemsize: int
    steps: int
    inputs: int
    hidden: int
    layers: int
    directions: int
    weights: int
    """Elements of all weight matrices."""
    dropout: bool
    """Whether there is dropout between layers."""
    projected: bool
    forward: bool


class Workspaces(Protocol):
    """Sizes of workspaces on a GPU: `gpus.libraries.workspaces(gpu_type)`."""

    def of(self, name: str, convolutions: Sequence[Convolution]) -> Sequence[Size]:
        """Of one of `Timeline.workspaces`, by the samples they hold from, rising from 0."""
        ...

    def buffer_bytes(self, kernel: Kernel | Recurrent, count: Int64) -> Int64:
        """[n] bytes that a kernel takes for [n] numbers of what it leaves open."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Timeline:
    """Allocations and frees of set-up and training steps. `n` events, `m` storages."""

    events: Int32
    """[n] storage index `s` where it is allocated, `~s` (negative) where it is freed."""
    phase: UInt8
    """[n] `Phase` of each event."""
    step: UInt8
    """[n] 0 in the first training step (and set-up), 1 in the second, 2 in its repetition."""

    intercept: Int64
    """[m] bytes at batch size 0, of the size a program asks for (not rounded)."""
    slope: Int64
    """[m] bytes for each further sample."""
    category: UInt8
    """[m] `Category` of each storage."""
    module: Int32
    """[m] index into `modules` of the module that allocated it; -1 for none."""
    micro_step: UInt8
    """[m] which micro-batch of its step it belongs to; the last one may be smaller."""

    stream: tuple[int, ...] = ()
    """[m] CUDA stream that each storage is allocated on, 0 the default one; empty when all are."""

    cache_emptied: tuple[int, ...] = ()
    """Indices of events right before which the program empties the allocator's cache, rising."""

    modules: tuple[Module, ...] = ()
    workspaces: Mapping[int, str] = field(default_factory=dict)
    """Storages whose size is the GPU's matter, by name: {17: "cublas", 20: "cudnn/0"}, "kernel/1".
    Intercept and slope count samples or rows, not bytes; `with_workspaces` gives these."""
    convolutions: tuple[Convolution, ...] = ()
    kernels: tuple[Kernel | Recurrent, ...] = ()
    sized: tuple[tuple[_Size, Int64], ...] = ()
    """Storages that count what is affine in the batch size where their bytes are not, and what
    gives these."""

    parameter_count: int = 0
    parameter_bytes: int = 0
    gradient_bytes: int = 0
    optimizer_state_bytes: int = 0
    buffer_bytes: int = 0

    micro_steps: int = 1
    """Micro-batches in each traced step: 1, or 2 when the job accumulates."""
    affine: bool = True
    """False when the event sequence depends on the batch size: then it holds for the one traced."""
    traced_batch_sizes: tuple[int, ...] = ()
    traits: tuple[str, ...] = ()
    """What the step contains that matters for uncertainty and advice: "attention",
    "batch_norm", "convolution", "data_parallel", "fully_sharded", "matrix_product",
    "recurrent"."""
    kernel_classes: tuple[tuple[int, int], ...] = ()
    """The kernel classes (`gpus.libraries.kernel_class`) it holds for: those whose GPUs would pick
    the same kernels. All of them when no choice depended on the GPU."""
    assumptions: tuple[str, ...] = ()
    library_versions: Mapping[str, str] = field(default_factory=dict)

    def sizes(self, batch_size: int, *, last_batch_size: int | None = None) -> Int64:
        """Bytes asked for by each storage, [m].

        `last_batch_size` is the size of the last micro-batch of each step where that differs.
        """
        assert self.affine or batch_size in self.traced_batch_sizes
        samples: int | Int64 = batch_size
        if last_batch_size is not None and self.micro_steps > 1:
            last = self.micro_step == self.micro_steps - 1
            samples = np.where(last, last_batch_size, batch_size).astype(np.int64)
        sizes = self.intercept + self.slope * samples
        for bytes_of, storages in self.sized:
            sizes[storages] = bytes_of(sizes[storages])
        return sizes

    def with_workspaces(self, workspaces: Workspaces) -> Timeline:
        """The timeline with the sizes that its workspaces have on a GPU."""
        intercept, slope = self.intercept.copy(), self.slope.copy()
        by_name: dict[str, list[int]] = {}
        for storage, name in self.workspaces.items():
            by_name.setdefault(name, []).append(storage)
        by_kernel: dict[Kernel | Recurrent, list[int]] = {}
        sized: list[tuple[_Size, Int64]] = []
        for name, storages in by_name.items():
            of, _, index = name.partition("/")
            if of == KERNEL:
                by_kernel.setdefault(self.kernels[int(index)], []).extend(storages)
                continue
            first, *others = workspaces.of(name, self.convolutions)
            if others:
                sized.append((partial(_bytes_of, (first, *others)), np.array(storages)))
                continue
            intercept[storages] = first.fixed + first.each * self.intercept[storages]
            slope[storages] = first.each * self.slope[storages]
        for kernel, storages in by_kernel.items():
            sized.append((partial(workspaces.buffer_bytes, kernel), np.array(storages)))
        return replace(self, intercept=intercept, slope=slope, workspaces={}, sized=tuple(sized))

    def to_bytes(self) -> bytes:
        """Compressed, for the store; `from_bytes` reads it back equal."""
        assert not self.sized
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        header = {k: arrays.pop(k) for k in list(arrays) if not isinstance(arrays[k], np.ndarray)}
        header["modules"] = [asdict(m) for m in self.modules]
        header["convolutions"] = [asdict(c) for c in self.convolutions]
        header["kernels"] = [asdict(k) for k in self.kernels]
        header["workspaces"] = {str(k): v for k, v in self.workspaces.items()}
        out = io.BytesIO()
        text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        np.savez_compressed(out, header=text, **arrays)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Timeline:
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop("header").tobytes())
        header["modules"] = tuple(Module(**m) for m in header["modules"])
        header["convolutions"] = tuple(_convolution(c) for c in header["convolutions"])
        header["kernels"] = tuple(_kernel(k) for k in header["kernels"])
        header["workspaces"] = {int(k): v for k, v in header["workspaces"].items()}
        header["kernel_classes"] = tuple(tuple(c) for c in header["kernel_classes"])
        for name in _TUPLES:
            header[name] = tuple(header[name])
        return cls(**header, **arrays)


def _bytes_of(sizes: Sequence[Size], samples: Int64) -> Int64:
    """By the last of the sizes that holds for so many samples."""
    found = np.zeros_like(samples)
    for size in sizes:
        found = np.where(samples >= size.samples, size.fixed + size.each * samples, found)
    return found


def _convolution(plain: dict[str, Any]) -> Convolution:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    return Convolution(**fields)


def _kernel(plain: dict[str, Any]) -> Kernel | Recurrent:
    return Recurrent(**plain) if "cell" in plain else Kernel(**plain)
