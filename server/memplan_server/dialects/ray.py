"""Ray: options of a remote function or actor.

https://docs.ray.io/en/latest/ray-core/scheduling/accelerators.html
"""

from __future__ import annotations

from memplan_server.dialects.wanted import Candidate, Wanted

__all__ = ["options"]

ACCELERATORS = {
    "nvidia-a10g": "A10G",
    "nvidia-a100-40gb": "A100-40G",
    "nvidia-a100-80gb": "A100-80G",
    "nvidia-b200": "B200",
    "nvidia-gb200": "GB200",
    "nvidia-h100-80gb": "H100",
    "nvidia-h200": "H200",
    "nvidia-l4": "L4",
    "nvidia-l40s": "L40S",
    "nvidia-p100": "P100",
    "nvidia-t4": "T4",
    "nvidia-v100-16gb": "V100",
}
"""Names of `ray.util.accelerators` that stand for a memory no smaller than the type's."""
STEPS = 10_000
"""Ray counts resources in steps of 0.0001."""


def options(request: Wanted) -> str | None:
    """`options` for `ray.remote(**options)`, and how many `workers` of it there are.

    The first GPU type with a name, for Ray takes one. A share of a GPU is a promise: Ray keeps
    nobody from taking more.
    """
    named = [c for c in request.candidates if c.gpu_type.name in ACCELERATORS]
    if not named:
        return None
    first = named[0]
    chosen = {
        "num_gpus": _fraction(first),
        "accelerator_type": ACCELERATORS[first.gpu_type.name],
        "runtime_env": {"env_vars": dict(request.environment)},
    }
    lines = ["options = {", *(f"    {key!r}: {value!r}," for key, value in chosen.items()), "}"]
    return "".join(f"{line}\n" for line in [*lines, f"workers = {request.rank_count}"])


def _fraction(candidate: Candidate) -> float:
    """Its share of the GPU, rounded up; never more than the whole."""
    steps = -(-candidate.need_bytes * STEPS // candidate.gpu_type.usable_bytes)
    return min(int(steps), STEPS) / STEPS
