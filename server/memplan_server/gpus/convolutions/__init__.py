"""Workspaces of cuDNN's convolutions, by rules for each generation of GPUs.

    for size in rules((9, 0)).workspace(convolution):     # one, or more where samples matter
        if samples >= size.samples:
            nbytes = size.each * samples + size.fixed

How far they are right: docs/convolutions.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memplan_server.gpus.convolutions import ampere, hopper
from memplan_server.timeline import Size

if TYPE_CHECKING:
    from memplan_server.timeline import Convolution

__all__ = ["Rules", "rules"]


@dataclass(frozen=True, slots=True)
class Rules:
    """Equal for GPUs on which convolutions take the same."""

    tensor_core_dtypes: frozenset[str]
    hopper: bool = False
    """By measurements of Hopper; by those of Ampere otherwise, on whatever GPU."""
    multiprocessors: int = 0
    """Of Hopper, where they matter."""

    def workspace(self, convolution: Convolution) -> tuple[Size, ...]:
        """Sizes by the number of samples, rising; see `Workspaces` in timeline.py."""
        if convolution.dtype not in self.tensor_core_dtypes:
            return (Size(),)
        if not self.hopper:
            return (Size(0, *ampere.workspace(convolution)),)
        found: list[Size] = []
        for samples in hopper.steps(convolution):
            nbytes = hopper.workspace(convolution, samples, self.multiprocessors)
            if not found or nbytes != (found[-1].each, found[-1].fixed):
                found.append(Size(samples, *nbytes))
        return tuple(found)


def rules(compute_capability: tuple[int, int], multiprocessors: int = 132) -> Rules:
    """The rules for GPUs of a compute capability."""
    if compute_capability != (9, 0):
        return Rules(tensor_core_dtypes(compute_capability))
    return Rules(
        tensor_core_dtypes(compute_capability), hopper=True, multiprocessors=multiprocessors
    )


def tensor_core_dtypes(compute_capability: tuple[int, int]) -> frozenset[str]:
    """The number formats that cuDNN gives to tensor cores on such a GPU.

    float32 is computed in TF32 from 8.0 on, as PyTorch allows by default for convolutions
    (`torch.backends.cudnn.allow_tf32`). Source: the CUDA programming guide's table of features.
    """
    if compute_capability >= (8, 0):
        return frozenset({"float32", "float16", "bfloat16"})
    return frozenset({"float16"} if compute_capability >= (7, 0) else ())
