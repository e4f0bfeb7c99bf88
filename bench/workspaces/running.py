"""What a convolution's workspace is on a GPU: it is run, and the allocator's counters are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from memplan.types import TrainingJob
from memplan_server.measure import real
from memplan_server.timeline import Convolution
from workspaces.backend import Library, version
from workspaces.comparison import Call
from workspaces.devices import described
from workspaces.heuristics import padding

__all__ = ["Counters", "Measured", "describe", "measure", "operation", "workspace_bytes"]

Tensor = torch.Tensor


class Counters(Protocol):
    """Of the caching allocator: the module `torch.cuda`."""

    def memory_allocated(self) -> int:
        """Bytes of blocks in use."""
        ...

    def max_memory_allocated(self) -> int:
        """The most since `reset_peak_memory_stats`."""
        ...

    def reset_peak_memory_stats(self) -> None:
        """Start anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What was found on a GPU."""

    cudnn: str
    """The version that PyTorch ran with."""
    workspaces: Sequence[int | None]
    """Bytes, in the order of the calls; None where there was no room."""


def describe(folder: Path | None) -> dict[str, Any]:
    """The first GPU, as the cuDNN in `folder` describes it. In a child process.

    Raises CudnnError.
    """
    return described(Library.load(folder))


def measure(job: TrainingJob, calls: Sequence[Call]) -> Measured:
    """Run each call on the first GPU, with the backends set as for the job. In a child process."""
    real.set_backends(job)
    device = torch.device("cuda", 0)
    number = torch.backends.cudnn.version() or 0
    found = [workspace_bytes(c.convolution, c.samples, device, torch.cuda) for c in calls]
    return Measured(cudnn=version(number), workspaces=found)


def workspace_bytes(
    convolution: Convolution, samples: int, device: torch.device, counters: Counters
) -> int | None:
    """What is allocated beside operands and result while it runs, in blocks of 512 bytes.

    It runs once before, so that trials of cudnn.benchmark do not count. None where there was no
    memory for it.
    """
    try:
        run = operation(convolution, samples, device)
        run()
        counters.reset_peak_memory_stats()
        result = run()
        taken = counters.max_memory_allocated() - counters.memory_allocated()
        del result
    except torch.OutOfMemoryError:
        return None
    return taken


def operation(convolution: Convolution, samples: int, device: torch.device) -> Callable[[], Tensor]:
    """A function that computes it, on operands of undefined values. Raises CudnnError."""
    shapes = {
        "x": (samples, *convolution.image),
        "y": (samples, *convolution.result),
        "w": convolution.kernel,
    }
    made = {name: _empty(shape, convolution, device) for name, shape in shapes.items()}
    zeros = [0] * len(convolution.stride)
    how = [convolution.stride, padding(convolution), convolution.dilation, False, zeros]
    how.append(convolution.groups)
    aten: Any = torch.ops.aten
    if convolution.direction == "fprop":
        del made["y"]
        return lambda: aten.convolution(made["x"], made["w"], None, *how)
    of_image = convolution.direction == "dgrad"
    mask = [of_image, not of_image, False]

    def backward() -> Tensor:
        given = made["y"], made["x"], made["w"]
        result: Tensor = aten.convolution_backward(*given, None, *how, mask)[0 if of_image else 1]
        return result

    return backward


def _empty(shape: tuple[int, ...], convolution: Convolution, device: torch.device) -> Tensor:
    last = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
    layout = last if convolution.channels_last else torch.contiguous_format
    dtype = getattr(torch, convolution.dtype)
    return torch.empty(shape, dtype=dtype, device=device, memory_format=layout)
