"""Writes down every allocation and free of the simulated GPU.

A `Recorder` is a `FakeTensorMode`: it computes the shapes of each operator's results, and a storage
not seen before is an allocation. A weak reference to the storage notices the free at the moment the
last tensor lets go of it. Operators that the fake mode calls to work out a result are not the
program's and are not recorded.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)

from memplan.fakes import known, masks
from memplan_server.simulate import accumulation, buffers, convolution, streams, temporaries
from memplan_server.simulate.host import HostValues
from memplan_server.simulate.recurrent import KERNELS as RECURRENT
from memplan_server.timeline import KERNEL, Category, Convolution, Kernel, Phase, Recurrent

__all__ = ["Recorder", "Recording", "Storage"]

_ATEN = torch.ops.aten
_GEMM = frozenset(
    getattr(_ATEN, name)
    for name in ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "addbmm", "dot", "vdot")
)
_SCALAR_READ = _ATEN._local_scalar_dense.default
_KERNELS = masks.KERNELS | convolution.KERNELS | RECURRENT | temporaries.KERNELS


@dataclass(slots=True)
class Storage:
    """One allocation."""

    nbytes: int
    category: Category
    module: int
    micro_step: int
    stream: int = 0
    workspace: str = ""


@dataclass(slots=True)
class Recording:
    """What a `Recorder` wrote down."""

    events: list[int] = field(default_factory=list)
    """`s` where storage `s` is allocated, `~s` where it is freed."""
    marks: list[tuple[int, Phase, int]] = field(default_factory=list)
    """Where a phase begins: (index into events, phase, training step)."""
    storages: list[Storage] = field(default_factory=list)
    assumptions: dict[str, None] = field(default_factory=dict)
    operators: set[str] = field(default_factory=set)
    convolutions: dict[Convolution, int] = field(default_factory=dict)
    """Each distinct cuDNN call, and its index."""
    kernels: list[Kernel | Recurrent] = field(default_factory=list)
    """Of each buffer that a kernel takes."""
    cache_emptied: list[int] = field(default_factory=list)
    """Indices of events right before which the program empties the allocator's cache."""


class Recorder(FakeTensorMode):
    """A fake tensor mode that writes a `Recording` of what happens on `device`."""

    def __init__(self, device: torch.device, *, cudnn_benchmark: bool = False) -> None:
        super().__init__(allow_fallback_kernels=False, allow_non_fake_inputs=True)
        self._unshared = accumulation.references_when_unshared()  # not while backward runs
        self.recording = Recording()
        self.module = -1
        """Index of the module whose forward runs; -1 for none."""
        self.micro_step = 0
        self.conditions = True
        """What conditions on values that are not known are taken to be."""
        self._device_type = device.type
        self._category: Category | None = None
        self._phase = Phase.SETUP
        self._depth = 0
        self._alive: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self._reserved: list[int] = []
        self._workspaces: set[tuple[str, Phase]] = set()
        self._cudnn_benchmark = cudnn_benchmark
        self._tried: set[tuple[object, ...]] = set()
        self._scalar: float | None = None
        self._streams = {streams.DEFAULT: 0}

    @property
    def avoid_device_init(self) -> bool:
        """The simulated GPU has nothing to initialise."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._depth:
            return super().__torch_dispatch__(func, types, args, kwargs)
        if func is _SCALAR_READ:
            return self._read_scalar(args[0])
        if self._phase is Phase.BACKWARD:
            on_gpu = accumulation.in_place(func, args, self._unshared)
            if on_gpu is not None:
                return self.execute(on_gpu, *args)
        packet = func._overloadpacket
        if func in _KERNELS:
            made = _KERNELS[func](self, *args, **(kwargs or {}))
            if made is not None:
                self.recording.operators.add(packet.__name__)
                known.follow(func, args, kwargs or {}, made)
                return made
        if func in temporaries.COMPOSED:
            return self._composed(func, args, kwargs or {})
        try:
            out = self._computed(func, types, args, kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            return self._worked_out(func, args, kwargs or {})
        self.recording.operators.add(packet.__name__)
        self._see_all(temporaries.on_gpu(func, out))
        known.follow(func, args, kwargs or {}, out)
        if packet in _GEMM:
            self._use_cublas(with_bias=_with_bias(packet, args))
        if func in temporaries.TEMPORARIES:
            for sizes in temporaries.TEMPORARIES[func](*args, **(kwargs or {})):
                self._take(sizes)
        if func in buffers.KERNELS:
            found = buffers.KERNELS[func](*args, **(kwargs or {}))
            self.give_back([self.buffer(kernel, rows) for kernel, rows in found])
        return out

    def _computed(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        self._depth = 1
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self._depth = 0

    def _composed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operator that PyTorch composes of others, each recorded."""
        self.recording.operators.add(func._overloadpacket.__name__)
        with self:
            out = func._op_dk(temporaries.composite(func), *args, **kwargs)
        known.follow(func, args, kwargs, out)
        return out

    def _worked_out(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The result of an operator that depends on values, where those are known."""
        found = known.result_of(func, args, kwargs)
        if found is None:
            raise
        for sentence in found[1]:
            self.assume(sentence)
        return masks.made(self, args[0], *found)

    def values_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The tensor's values, if they are known; what they rest on is stated in the answer."""
        values = known.value_of(tensor)
        if values is not None:
            for sentence in known.known_of(tensor).assumptions:  # type: ignore[union-attr]
                self.assume(sentence)
        return values

    def execute(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute an operator that another one stands for."""
        return self.__torch_dispatch__(func, (), args, kwargs)

    def _see_all(self, out: Any) -> None:
        if isinstance(out, FakeTensor):
            self._see(out)
        elif isinstance(out, (list, tuple)):
            for item in out:
                self._see_all(item)

    def _see(self, tensor: FakeTensor) -> None:
        if tensor.fake_device.type != self._device_type:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            self._see_grown(key, tensor)
            return
        index = self._reserved.pop() if self._reserved else self._allocate()
        self.recording.storages[index].nbytes = _nbytes(tensor)

        def freed(_: object) -> None:
            self.recording.events.append(~self._alive.pop(key)[0])

        self._alive[key] = (index, weakref.ref(storage, freed))

    def _see_grown(self, key: int, tensor: FakeTensor) -> None:
        """What was made without elements may have been resized: results given with `out=`."""
        index, alive = self._alive[key]
        if self.recording.storages[index].nbytes or not (nbytes := _nbytes(tensor)):
            return
        self.recording.events.append(~index)
        index = self._allocate()
        self.recording.storages[index].nbytes = nbytes
        self._alive[key] = (index, alive)

    def resized(self, storage: torch.UntypedStorage) -> None:
        """The program gave the memory of a storage back, or took some for it anew."""
        found = self._alive.get(storage._cdata)
        if found is None or self._depth:
            return
        before, alive = found
        self.recording.events.append(~before)
        index = self._allocate()
        made = self.recording.storages[index]
        made.nbytes, made.category = storage.nbytes(), self.recording.storages[before].category
        self._alive[storage._cdata] = (index, alive)

    def _allocate(self, workspace: str = "") -> int:
        recording = self.recording
        index = len(recording.storages)
        category = self._category if self._category is not None else _BY_PHASE[self._phase]
        if workspace:
            category = Category.WORKSPACE
        module = self.module if self._phase is Phase.FORWARD else -1
        stream = self._streams.setdefault(streams.current(), len(self._streams))
        made = Storage(0, category, module, self.micro_step, stream, workspace)
        recording.storages.append(made)
        recording.events.append(index)
        return index

    def _use_cublas(self, *, with_bias: bool) -> None:
        """The first matrix product of each thread makes a cuBLAS handle, with a workspace for good.
        cuBLASLt, which adds biases, has the same handle and a workspace besides.

        Forward runs in the program's thread, backward in autograd's. Source: `getCUDABlasHandle` in
        aten/src/ATen/cuda/CublasHandlePool.cpp (handles are pooled by thread, workspaces kept by
        handle and stream).
        """
        thread = Phase.BACKWARD if self._phase is Phase.BACKWARD else Phase.FORWARD
        for library in ("cublas", "cublaslt") if with_bias else ("cublas",):
            self.keep(library, thread)

    def keep(self, workspace: str, thread: Phase = Phase.FORWARD) -> None:
        """A workspace is made at its first use in a thread, for good."""
        if (workspace, thread) not in self._workspaces:
            self._workspaces.add((workspace, thread))
            self._allocate(workspace=workspace)

    def _take(self, sizes: Sequence[int]) -> None:
        """Allocate storages of these sizes, and free them."""
        taken = [self._allocate() for _ in sizes]
        for index, nbytes in zip(taken, sizes, strict=True):
            self.recording.storages[index].nbytes = nbytes
        self.recording.events += [~index for index in reversed(taken)]

    def buffer(self, kernel: Kernel | Recurrent, count: int) -> int:
        """Allocate what a kernel takes, until it is given back; a count stands for its bytes."""
        index = self._allocate(workspace=f"{KERNEL}/{len(self.recording.kernels)}")
        self.recording.kernels.append(kernel)
        made = self.recording.storages[index]
        made.nbytes, made.category = count, Category.TEMPORARY
        return index

    def give_back(self, taken: Sequence[int]) -> None:
        """Free such buffers, the last one first."""
        self.recording.events += [~index for index in reversed(taken)]

    def convolution_workspace(
        self, convolution: Convolution, samples: int, padding: Sequence[int]
    ) -> None:
        """A cuDNN call takes a workspace and gives it back; samples stand for its bytes."""
        if self._cudnn_benchmark:
            self._try_algorithms(convolution, samples, tuple(padding))
        known = self.recording.convolutions
        name = f"cudnn/{known.setdefault(convolution, len(known))}"
        index = self._allocate(workspace=name)
        self.recording.storages[index].nbytes = samples
        self.recording.events.append(~index)

    def _try_algorithms(self, *call: object) -> None:
        """The first such call of a thread tries algorithms; then PyTorch empties the cache.

        What the trial takes is not written down: it takes no more than there is, and less when that
        is not there. Source: `run_single_conv` and `generate_and_filter_plans` in
        aten/src/ATen/native/cudnn/Conv_v8.cpp; `ConvolutionParams` in ConvShared.h are the key.
        """
        key = self._phase is Phase.BACKWARD, *call
        if key not in self._tried:
            self._tried.add(key)
            self.assume(_TRIALS)
            self.recording.cache_emptied.append(len(self.recording.events))

    def _read_scalar(self, tensor: torch.Tensor) -> Any:
        """`.item()`: there is no data, so the answer is an assumption."""
        dtype = tensor.dtype
        if self._scalar is not None:
            return self._scalar
        values = self.values_of(tensor)
        if values is not None:
            return values.item()
        if dtype == torch.bool:
            self.assume(known.CONDITIONS[self.conditions])
            return self.conditions
        if tensor.device.type == self._device_type:
            self.assume(known.NUMBERS)
        return 1.0 if dtype.is_floating_point else 1

    def assume(self, sentence: str) -> None:
        """State an assumption in the answer, once."""
        self.recording.assumptions[sentence] = None

    def enter(self, phase: Phase, step: int) -> None:
        """From now on it is this phase of this training step."""
        self._phase = phase
        self.recording.marks.append((len(self.recording.events), phase, step))

    @contextlib.contextmanager
    def category(self, category: Category) -> Iterator[None]:
        """Storages made inside are for this."""
        before, self._category = self._category, category
        try:
            yield
        finally:
            self._category = before

    @contextlib.contextmanager
    def scalars_are(self, value: float) -> Iterator[None]:
        """`.item()` answers this inside, without being an assumption worth stating."""
        before, self._scalar = self._scalar, value
        try:
            yield
        finally:
            self._scalar = before

    def host_values(self) -> contextlib.AbstractContextManager[object]:
        """Tensors that are made inside in host memory have values."""
        return HostValues()  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def unrecorded(self) -> Iterator[None]:
        """What is made inside is not the program's: PyTorch finds out what results look like."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def reserve(self) -> int:
        """Make room in the timeline for a storage whose size is known later."""
        return self._allocate()

    def fill(self, index: int) -> None:
        """The next storage made is the one reserved."""
        self._reserved.append(index)

    def mark(self, tensors: Iterable[torch.Tensor], category: Category) -> None:
        """These tensors' storages turn out to be for this."""
        for tensor in tensors:
            found = self._alive.get(tensor.untyped_storage()._cdata)
            if found is not None:
                self.recording.storages[found[0]].category = category

    def close(self) -> None:
        """Stop listening: what is freed from now on is clean-up, not the program."""
        self._alive.clear()


def _with_bias(packet: Any, args: Sequence[Any]) -> bool:
    """Whether cuBLASLt adds the bias of each column.

    Source: `addmm_out_cuda_impl` in aten/src/ATen/native/cuda/Blas.cpp.
    """
    return packet is _ATEN.addmm and args[0].dim() == 1 and args[0].is_contiguous()


def _nbytes(tensor: torch.Tensor) -> int:
    """Bytes of the tensor's storage.

    The fake mode's cache makes a storage that ends with the last element, also where the operator
    makes rows longer than the tensor's and returns a slice of them, as the gradient of an attention
    mask is.
    """
    nbytes = tensor.untyped_storage().nbytes()
    if not nbytes or tensor.is_contiguous():
        return nbytes
    rows = max(size * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return max(nbytes, rows * tensor.element_size())


_TRIALS = (
    "what cuDNN takes for a moment to try algorithms (torch.backends.cudnn.benchmark) is not "
    "counted: it is part of what is free on the GPU"
)
_BY_PHASE = {
    Phase.SETUP: Category.PARAMETER,
    Phase.FORWARD: Category.ACTIVATION,
    Phase.BACKWARD: Category.TEMPORARY,
    Phase.OPTIMIZER_STEP: Category.TEMPORARY,
}
