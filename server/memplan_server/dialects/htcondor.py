"""HTCondor: lines of a submit description.

https://htcondor.readthedocs.io/en/latest/man-pages/condor_submit.html
"""

from __future__ import annotations

from memplan_server.dialects.text import mig_profile, products
from memplan_server.dialects.wanted import Candidate, Wanted

__all__ = ["submit_description"]


def submit_description(request: Wanted) -> str | None:
    """A GPU for each rank by memory and by what `condor_gpu_discovery` calls it."""
    choices = [_choice(c) for c in request.candidates if products(c.gpu_type)]
    if not choices:
        return None
    environment = " ".join(f"{name}={value}" for name, value in request.environment.items())
    need = min(c.need_mib for c in request.candidates if products(c.gpu_type))
    lines = [
        "request_gpus = 1",
        f"gpus_minimum_memory = {need}",
        f"require_gpus = {' || '.join(choices)}",
        f'environment = "{environment}"',
        f"queue {request.rank_count}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _choice(candidate: Candidate) -> str:
    """Enough memory on that GPU type: no name here has a sign that needs quoting."""
    profile = mig_profile(candidate.gpu_type)
    ending = f" MIG {profile}" if profile else ""
    names = " || ".join(f'DeviceName == "{n}{ending}"' for n in products(candidate.gpu_type))
    return f"(({names}) && GlobalMemoryMb >= {candidate.need_mib})"
