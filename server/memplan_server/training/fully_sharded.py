"""The model as one of several ranks has it that shard it among them (FSDP2).

PyTorch's own `fully_shard` is on each repeated block of the model and on the model: parameters lie
in pieces, are gathered before a block runs and given back after it. There are no other ranks, and
collectives do nothing.

    with ranks(job, "cuda") as mesh:
        shard(job, model, mesh)                 # a model on the meta device
        model.to_empty(device=device)           # its pieces
        ...                                     # training

Importing this takes half a second more than torch: it is done for sharded models only.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from memplan.types import Precision, TrainingJob

__all__ = ["assumption", "blocks", "ranks", "shard"]

_ASSUMPTION = (
    "the model is sharded over {} ranks by fully_shard, {} blocks of it ({}) one by one; gradients "
    "of every micro-batch are reduced; what NCCL takes besides is not expected, the upper bound "
    "allows for it"
)
_PARAMETERS = {Precision.AMP_BF16: torch.bfloat16, Precision.AMP_FP16: torch.float16}


def shard(job: TrainingJob, model: nn.Module, mesh: DeviceMesh) -> None:
    """Leave this rank its piece of each parameter; the model is on the meta device."""
    options = job.data_parallel
    policy = MixedPrecisionPolicy()
    if job.precision in _PARAMETERS:
        policy = MixedPrecisionPolicy(
            param_dtype=_PARAMETERS[job.precision], reduce_dtype=torch.float32
        )
    for block in blocks(model):
        fully_shard(
            block,
            mesh=mesh,
            mp_policy=policy,
            reshard_after_forward=options.reshard_after_forward is not False,
        )
    fully_shard(model, mesh=mesh, mp_policy=policy)


def assumption(job: TrainingJob, module: nn.Module) -> str:
    """What is taken for granted of the model's blocks."""
    names = Counter(type(block).__name__ for block in blocks(module))
    said = ", ".join(names) or "it has none"
    return _ASSUMPTION.format(job.data_parallel.shard_count, names.total(), said)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The modules to gather one at a time, as trainers wrap them.

    Those whose classes the model's library says not to split (`_no_split_modules` of transformers
    and diffusers); else the repeated ones: modules of one class in a row, outermost first.
    """
    named = {name for m in model.modules() for name in getattr(m, "_no_split_modules", None) or ()}
    wanted = _of_classes(model, named) if named else _repeated(model)
    everywhere = _places(model)
    return [block for block in wanted if _on_its_own(block, everywhere)]


def _on_its_own(block: nn.Module, everywhere: Counter[int]) -> bool:
    """Whether it has parameters, and shares none with modules beside it."""
    within = _places(block)
    return bool(within) and all(count == everywhere[key] for key, count in within.items())


def _places(model: nn.Module) -> Counter[int]:
    """At how many places of the model each parameter is."""
    named = model.named_parameters(remove_duplicate=False)
    return Counter(id(parameter) for _, parameter in named)


def _of_classes(module: nn.Module, names: set[str]) -> Iterator[nn.Module]:
    for child in module.children():
        if type(child).__name__ in names:
            yield child
        else:
            yield from _of_classes(child, names)


def _repeated(module: nn.Module) -> Iterator[nn.Module]:
    children = list(module.children())
    row = isinstance(module, nn.ModuleList | nn.Sequential)
    classes = Counter(type(child) for child in children)
    for child in children:
        if row and classes[type(child)] > 1 and next(child.children(), None) is not None:
            yield child
        else:
            yield from _repeated(child)


@contextlib.contextmanager
def ranks(job: TrainingJob, device_type: str) -> Iterator[DeviceMesh]:
    """The ranks of the job, of which only the first is there; the process has no others."""
    size = job.data_parallel.shard_count
    dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        yield init_device_mesh(device_type, (size,))
    finally:
        dist.destroy_process_group()
