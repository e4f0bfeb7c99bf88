"""A plan as schedulers' own requests: what to ask each of them for.

    render(Scheduler.SLURM, wanted(job, answer, gpu_types))     # "#SBATCH --gres=gpu:1\n..."

Pure functions over a plan. Each dialect quotes strictly: no name, however strange, adds a line, a
key or an option. Where the job fits nowhere, the text is a comment that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memplan.types import Scheduler
from memplan_server.dialects import claims, htcondor, pods, ray, sharing, skypilot, slurm
from memplan_server.dialects.text import comment
from memplan_server.dialects.wanted import Candidate, Wanted, wanted

__all__ = ["Candidate", "Wanted", "render", "wanted"]

DIALECTS: Mapping[Scheduler, Callable[[Wanted], str | None]] = {
    Scheduler.SLURM: slurm.batch_script,
    Scheduler.KUBERNETES: pods.pod,
    Scheduler.DRA: claims.claim_and_pod,
    Scheduler.KUEUE: pods.queued_job,
    Scheduler.KAI: sharing.kai_pod,
    Scheduler.HAMI: sharing.hami_pod,
    Scheduler.VOLCANO: sharing.volcano_pod,
    Scheduler.HTCONDOR: htcondor.submit_description,
    Scheduler.RAY: ray.options,
    Scheduler.SKYPILOT: skypilot.task,
}
"""What writes a request; None where none of the GPUs has a name in that dialect."""


def render(scheduler: Scheduler, request: Wanted) -> str:
    """The request as text that ends with a newline; empty for no scheduler."""
    if scheduler is Scheduler.UNSPECIFIED:
        return ""
    if not request.candidates:
        return comment(f"memplan: no request. {request.reason}")
    text = DIALECTS[scheduler](request)
    if text is None:
        names = ", ".join(c.gpu_type.name for c in request.candidates)
        why = f"The job fits on {names}, for which there is no name in {scheduler.value}."
        return comment(f"memplan: no request. {why}")
    return comment(f"memplan: {request.reason}") + text
