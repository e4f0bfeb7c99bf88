"""Workspaces of cuDNN's convolutions, by rules for each generation of GPUs.

    for size in rules((9, 0)).workspace(convolution):     # one, or two where samples matter
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

    def workspace(self, convolution: Convolution) -> tuple[Size, ...]:
        """Sizes by the number of samples, rising; see `Workspaces` in timeline.py."""
        if convolution.dtype not in self.tensor_core_dtypes:
            return (Size(),)
        if not self.hopper:
            return (Size(0, *ampere.workspace(convolution)),)
        few, many = (hopper.workspace(convolution, many=many) for many in (False, True))
        sizes = Size(0, *few), Size(hopper.MANY_SAMPLES, *many)
        return sizes if few != many else sizes[:1]


def rules(compute_capability: tuple[int, int]) -> Rules:
    """The rules for GPUs of a compute capability."""
    return Rules(tensor_core_dtypes(compute_capability), hopper=compute_capability == (9, 0))


def tensor_core_dtypes(compute_capability: tuple[int, int]) -> frozenset[str]:
    """The number formats that cuDNN gives to tensor cores on such a GPU.

    float32 is computed in TF32 from 8.0 on, as PyTorch allows by default for convolutions
    (`torch.backends.cudnn.allow_tf32`). Source: the CUDA programming guide's table of features.
    """
    if compute_capability >= (8, 0):
        return frozenset({"float32", "float16", "bfloat16"})
    return frozenset({"float16"} if compute_capability >= (7, 0) else ())
