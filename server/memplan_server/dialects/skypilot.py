"""SkyPilot: fields of a task.

https://docs.skypilot.co/en/latest/reference/yaml-spec.html
"""

from __future__ import annotations

from memplan_server.dialects.text import documents
from memplan_server.dialects.wanted import Wanted

__all__ = ["task"]

ACCELERATORS = {
    "nvidia-a10": "A10",
    "nvidia-a10g": "A10G",
    "nvidia-a30": "A30",
    "nvidia-a40": "A40",
    "nvidia-a100-40gb": "A100",
    "nvidia-a100-80gb": "A100-80GB",
    "nvidia-b200": "B200",
    "nvidia-gb200": "GB200",
    "nvidia-h100-80gb": "H100",
    "nvidia-h200": "H200",
    "nvidia-l4": "L4",
    "nvidia-l40s": "L40S",
    "nvidia-p100": "P100",
    "nvidia-rtx-3090": "RTX3090",
    "nvidia-rtx-4090": "RTX4090",
    "nvidia-rtx-5090": "RTX5090",
    "nvidia-t4": "T4",
    "nvidia-v100-16gb": "V100",
    "nvidia-v100-32gb": "V100-32GB",
}
"""SkyPilot's canonical names."""


def task(request: Wanted) -> str | None:
    """Any of the GPUs, whole: one for each rank, on a node of its own."""
    names = [c.gpu_type.name for c in request.candidates]
    known = [ACCELERATORS[name] for name in names if name in ACCELERATORS]
    if not known:
        return None
    return documents(
        {
            "num_nodes": request.rank_count,
            "resources": {"accelerators": dict.fromkeys(known, 1)},
            "envs": dict(request.environment),
        }
    )
