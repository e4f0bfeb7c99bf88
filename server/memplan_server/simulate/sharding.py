"""Models sharded over ranks on the simulated GPU: their pieces, and what is gathered of them.

FSDP gives the memory of gathered parameters back by resizing their storages, and asks PyTorch what
results over all ranks would look like; neither is an operator of the program.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp._fully_shard import _fsdp_param
from torch.distributed.fsdp._fully_shard._fsdp_param import FSDPParam
from torch.distributed.tensor._sharding_prop import ShardingPropagator

from memplan.types import TrainingJob
from memplan_server.simulate import placing, streams
from memplan_server.simulate.recorder import Recorder
from memplan_server.timeline import Category
from memplan_server.training import Observer
from memplan_server.training.fully_sharded import assumption, ranks, shard

__all__ = ["Sharded", "followed", "make_pieces"]


class Sharded:
    """A model of which this rank has pieces; the one it is made from is left alone."""

    def __init__(self, job: TrainingJob, module: nn.Module, device_type: str) -> None:
        self.module = copy.deepcopy(module).to("meta")  # some make buffers in host memory
        self._job = job
        self._device_type = device_type
        self._mesh: DeviceMesh | None = None

    def place(self, recorder: Recorder, device: torch.device) -> None:
        """Shard the model, and make this rank's pieces."""
        recorder.assume(assumption(self._job, self.module))
        assert self._mesh is not None
        with mock.patch.object(_fsdp_param, "_chunk_with_empty", _first_chunk):
            shard(self._job, self.module, self._mesh)
        make_pieces(self.module, recorder, device)

    @contextlib.contextmanager
    def followed(self, recorder: Recorder) -> Iterator[None]:
        """Have ranks, and write down what happens besides operators."""
        with ranks(self._job, self._device_type) as self._mesh, followed(recorder):
            yield


def _first_chunk(tensor: torch.Tensor, count: int, dim: int) -> list[torch.Tensor]:
    """The piece of the first rank alone: to make all of them takes long where there are many."""
    length = -(-tensor.size(dim) // count)
    return [tensor.narrow(dim, 0, length)]


def make_pieces(model: nn.Module, observer: Observer, device: torch.device) -> None:
    """The parameters and buffers of a sharded model that is on the meta device."""
    with observer.category(Category.PARAMETER):
        model.to_empty(device=device)
    placing.attributes_to_host(model)
    observer.mark(model.buffers(), Category.BUFFER)


@contextlib.contextmanager
def followed(recorder: Recorder) -> Iterator[None]:
    """Write down what FSDP does besides operators."""
    resize, gathered = torch.UntypedStorage.resize_, FSDPParam.init_all_gather_outputs
    propagate = ShardingPropagator._propagate_tensor_meta_non_cached

    def resized(storage: torch.UntypedStorage, size: int) -> Any:
        out = resize(storage, size)
        recorder.resized(storage)
        return out

    def gathering(*args: Any, **kwargs: Any) -> Any:
        with recorder.category(Category.PARAMETER):
            return gathered(*args, **kwargs)

    def propagated(*args: Any, **kwargs: Any) -> Any:
        with recorder.unrecorded():
            return propagate(*args, **kwargs)

    with (
        warnings.catch_warnings(),
        mock.patch.object(torch.UntypedStorage, "resize_", resized),
        mock.patch.object(FSDPParam, "init_all_gather_outputs", gathering),
        mock.patch.object(ShardingPropagator, "_propagate_tensor_meta_non_cached", propagated),
        # FSDP asks it, and not the device's module, for what was gathered and never used.
        mock.patch.object(torch.accelerator, "current_stream", streams.current),
    ):
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
        yield
