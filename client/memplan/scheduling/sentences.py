"""Plans in words: sentences for people who submit jobs, variables for the jobs."""

from __future__ import annotations

from collections.abc import Container, Sequence

from memplan.types import AccumulationPlan, Placement, TrainingJob

__all__ = ["environment", "micro_batches", "one_line", "remedies"]

_MOST_REMEDIES = 3


def remedies(placements: Sequence[Placement], here: Container[str] | None = None) -> list[str]:
    """What would help; with `here` no GPU types but those."""
    texts = [
        remedy.description
        for placement in placements
        for remedy in placement.remedies
        if here is None or not remedy.gpu_type or remedy.gpu_type in here
    ]
    return [f"It {text}." for text in dict.fromkeys(texts)][:_MOST_REMEDIES]


def one_line(text: str, most: int) -> str:
    """At most so many signs, with none that a terminal would follow."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    short = " ".join(printable.split())
    return short if len(short) <= most else short[: most - 3] + "..."


def environment(job: TrainingJob, accumulation: AccumulationPlan | None) -> dict[str, str]:
    """Variables with the micro-batches planned, or those of the job as it is described."""
    micro, steps = micro_batches(job, accumulation)
    return {"MEMPLAN_MICRO_BATCH_SIZE": str(micro), "MEMPLAN_ACCUMULATION_STEPS": str(steps)}


def micro_batches(job: TrainingJob, accumulation: AccumulationPlan | None) -> tuple[int, int]:
    """Size and number of the micro-batches."""
    if accumulation is not None and accumulation.feasible:
        return accumulation.micro_batch_size, accumulation.accumulation_steps
    return job.micro_batch_size, job.loop.accumulation_steps or 1
