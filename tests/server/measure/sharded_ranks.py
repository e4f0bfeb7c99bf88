"""Real ranks of FSDP on the CPU: `python sharded_ranks.py JOB.json EVENTS.pickle`.

Writes down what the first of two ranks allocates and frees in two steps, with real collectives
(gloo).
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from memplan.plain import from_dict
from memplan.types import TrainingJob
from memplan_server import models
from memplan_server.measure.cpu import HostRecorder
from memplan_server.measure.values import RandomData
from memplan_server.simulate import sharding
from memplan_server.timeline import Phase
from memplan_server.training import Loop, prepare
from memplan_server.training.fully_sharded import shard
from memplan_server.training.pieces import local

RANKS = 2
SETTLED_S = 0.02
COLLECTIVES = (
    "all_gather_single",
    "reduce_scatter_single",
    "all_gather_into_tensor",  # their names before torch 2.13
    "reduce_scatter_tensor",
)
"""Those that FSDP calls."""


class ResizingRecorder(HostRecorder):
    """Sees storages whose memory is given back and taken anew, and local tensors only."""

    asked_about = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if DTensor in types:
            return NotImplemented  # it comes again with the local tensors
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _see(self, tensor: torch.Tensor, operator: str) -> None:
        if not self.asked_about:
            super()._see(tensor, operator)

    @contextlib.contextmanager
    def unrecorded(self) -> Iterator[None]:
        self.asked_about = True
        yield
        self.asked_about = False

    def resized(self, storage: torch.UntypedStorage) -> None:
        found = self._alive.get(storage._cdata)
        if found is None:
            return
        before, alive = found
        self._events += [~before, len(self._sizes)]
        self._alive[storage._cdata] = (len(self._sizes), alive)
        self._sizes.append(storage.nbytes())
        self._operators.append("resize")


def settled(collective: Callable[..., Any]) -> Callable[..., Any]:
    """The collective; then gloo's thread has time to let go of what it has communicated."""

    def called(*args: Any, **kwargs: Any) -> Any:
        out = collective(*args, **kwargs)
        time.sleep(SETTLED_S)
        return out

    return called


def run(rank: int, address: str, job: TrainingJob, out: Path) -> None:
    store = dist.FileStore(address, RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    built = models.build(job)
    prepare(job, built.module)
    recorder: Any = ResizingRecorder()
    for name in COLLECTIVES:
        if hasattr(dist, name):
            setattr(dist, name, settled(getattr(dist, name)))
    mesh = init_device_mesh("cpu", (RANKS,))
    device = torch.device("cpu")
    with recorder, sharding.followed(recorder):
        recorder.enter(Phase.SETUP, 0)
        shard(job, built.module, mesh)
        sharding.make_pieces(built.module, recorder, device)
        for tensor in (*built.module.parameters(), *built.module.buffers()):
            torch.nn.init.zeros_(local(tensor))
        loop = Loop(
            job=job,
            built=built,
            device=device,
            batch_size=job.micro_batch_size,
            micro_steps=job.loop.accumulation_steps,
            observer=recorder,
            data=RandomData(built),
        )
        loop.run()
        recorder.close()
    if rank == 0:
        out.write_bytes(pickle.dumps(recorder.events()))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    said = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    asked = from_dict(TrainingJob, said)
    multiprocessing.spawn(run, (f"{sys.argv[2]}.store", asked, Path(sys.argv[2])), RANKS)
