"""What a job asks for, in Slurm's words: `gres:gpu:a100:2,gres:shard:1`.

22.05 writes `gres:gpu:2`, later versions `gres/gpu:2`; what is changed keeps its form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FIELDS", "GpuRequest", "gpu_request", "with_type"]

FIELDS = ("tres_per_node", "tres_per_job", "tres_per_task", "tres_per_socket")
"""Fields of a job in which GPUs can stand."""
_GPU = re.compile(
    r"(?P<head>(?:gres[:/])?gpu)(?::(?P<type>[^:=]*[^:=\d][^:=]*))?(?P<count>[:=]\d+)?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuRequest:
    """Where a job asks for GPUs."""

    field: str
    """One of FIELDS."""
    value: str
    """All that stands there."""
    gres_type: str
    """The type asked for; empty for any."""


def gpu_request(job: Mapping[str, str]) -> GpuRequest | None:
    """The first request for GPUs; None where the job asks for none."""
    for field in FIELDS:
        value = job.get(field, "")
        for part in value.split(","):
            if match := _GPU.fullmatch(part):
                return GpuRequest(field=field, value=value, gres_type=match["type"] or "")
    return None


def with_type(request: GpuRequest, gres_type: str) -> str:
    """The value with that type for its GPUs."""
    return ",".join(_typed(part, gres_type) for part in request.value.split(","))


def _typed(part: str, gres_type: str) -> str:
    match = _GPU.fullmatch(part)
    return f"{match['head']}:{gres_type}{match['count'] or ''}" if match else part
