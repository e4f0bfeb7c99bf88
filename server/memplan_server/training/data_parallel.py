"""The model as one of several data-parallel ranks has it.

PyTorch's own DistributedDataParallel is around it, with its reducer: the buckets of gradients, what
is copied into them, and their making anew after the first step are PyTorch's. There are no other
ranks, and collectives do nothing, so one process on one GPU can run it, too.

Not modelled: what NCCL takes besides PyTorch's allocator (`planning/uncertainty.py` allows for it),
and the few bytes with which ranks compare their models at first.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import FakeProcessGroup
from torch.distributed.algorithms.ddp_comm_hooks.debugging_hooks import noop_hook
from torch.distributed.utils import _sync_module_states
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from memplan.types import DataParallel
from memplan_server.timeline import Category
from memplan_server.training.observer import Observer

__all__ = ["ASSUMPTION", "Rank"]

ASSUMPTION = (
    "the model is within DistributedDataParallel, all micro-batches of a step but the last under "
    "its no_sync(); what NCCL takes besides is not expected, the upper bound allows for it"
)
_UNUSED = (
    "{} of {} trained parameters get no gradient: DistributedDataParallel is taken to have "
    "find_unused_parameters"
)
_RANKS = 2
"""The least that have something to reduce; buckets do not depend on how many there are."""
_FIRST_BROADCAST_BYTES = 250 << 20
"""Pieces in which parameters are sent at first: `broadcast_bucket_size` in
torch/nn/parallel/distributed.py."""


class Rank:
    """Calls the model as a rank does, and reduces its gradients.

    rank = Rank(options, module, observer)
    with rank.micro_step(last=True):
        outputs = rank(inputs)
        ...                                     # backward
    """

    def __init__(self, options: DataParallel, module: nn.Module, observer: Observer) -> None:
        """`module` is on its device; `options` have their defaults written out."""
        self._options = options
        self._module = module
        self._observer = observer
        self._unused: int | None = None
        """Parameters without gradient after a backward pass; None before one."""
        observer.assume(ASSUMPTION)
        with observer.category(Category.TEMPORARY):
            _sync_module_states(module, _group(), _FIRST_BROADCAST_BYTES, 0, ())
        self._ddp = self._wrapped(find_unused=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A forward pass."""
        if self._unused is not None:
            self._rebuild()
        return self._ddp(*args, **kwargs)

    @contextlib.contextmanager
    def micro_step(self, *, last: bool) -> Any:
        """Around forward and backward of a micro-batch; the last one of a step is reduced."""
        with contextlib.ExitStack() as stack:
            if not last:
                stack.enter_context(self._ddp.no_sync())
            if self._unused:
                stack.enter_context(self._observer.host_values())
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield
        if last and self._unused is None:
            trained = [p for p in self._module.parameters() if p.requires_grad]
            self._unused = sum(p.grad is None for p in trained)
            if self._unused:
                self._observer.assume(_UNUSED.format(self._unused, len(trained)))

    def _rebuild(self) -> None:
        """Make the buckets anew, once, in the order in which gradients came.

        DistributedDataParallel would do it in the forward pass, and would stop at parameters
        without gradient: with `find_unused_parameters` its first buckets stay.
        """
        if self._unused and not self._ddp.find_unused_parameters:
            del self._ddp
            gc.collect()
            self._ddp = self._wrapped(find_unused=True)
        with self._observer.category(Category.GRADIENT), self._observer.host_values():
            self._ddp.reducer._rebuild_buckets()

    def _wrapped(self, *, find_unused: bool) -> DistributedDataParallel:
        options = self._options
        with self._observer.category(Category.GRADIENT), self._observer.host_values():
            ddp = DistributedDataParallel(
                self._module,
                process_group=_group(),
                bucket_cap_mb=options.bucket_cap_mb,
                find_unused_parameters=find_unused,
                gradient_as_bucket_view=options.gradient_as_bucket_view,
                init_sync=False,  # it compares values
            )
        ddp.register_comm_hook(None, noop_hook)
        ddp.logger = _NoStatistics()
        return ddp


class _NoStatistics:
    """In place of the one that times collectives, and warns of devices without a timer."""

    def set_runtime_stats_and_log(self) -> None:
        """There are no collectives."""


@functools.cache
def _group() -> dist.ProcessGroup:
    """Ranks of which only this one is there."""
    group = dist.ProcessGroup(FakeStore(), 0, _RANKS)
    backend = FakeProcessGroup._create_internal(0, _RANKS)
    kind = dist.ProcessGroup.BackendType.CUSTOM
    group._set_default_backend(kind)
    for device_type in ("cpu", "cuda"):
        group._register_backend(torch.device(device_type), kind, backend)
    return group
