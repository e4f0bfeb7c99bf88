"""A plan as a small piece of HTML, for notebooks. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from memplan.types.estimate import MemoryEstimate, Placement
from memplan.types.requests import PlanJobResponse

__all__ = ["plan_html"]


def plan_html(plan: PlanJobResponse) -> str:
    """The estimate, the placements with batch sizes, and what the answer takes for granted."""
    batches = [str(b.recommended_batch_size) for b in plan.batch_sizes]
    batches += [""] * (len(plan.placements) - len(batches))
    rows = [
        _placement(placement, batch)
        for placement, batch in zip(plan.placements, batches, strict=False)
    ]
    head = ("GPU", "verdict", "expected", "at most", "capacity", "recommended batch")
    parts = [_estimate(plan.estimate), _table(head, rows)]
    if plan.estimate.assumptions:
        items = "".join(f"<li>{escape(said)}</li>" for said in plan.estimate.assumptions)
        parts.append(f"<p>Assumptions</p><ul>{items}</ul>")
    return f"<div>{''.join(parts)}</div>"


def _estimate(estimate: MemoryEstimate) -> str:
    said = (
        f"Expected {_gib(estimate.device_used_bytes)}, at most {_gib(estimate.upper_bound_bytes)}: "
        f"allocated {_gib(estimate.peak_allocated_bytes)}, "
        f"reserved {_gib(estimate.peak_reserved_bytes)}."
    )
    return f"<p>{escape(said)}</p>"


def _placement(placement: Placement, batch: str) -> Sequence[str]:
    return (
        placement.gpu.gpu_type,
        placement.verdict.value.replace("_", " ").lower(),
        _gib(placement.device_used_bytes),
        _gib(placement.upper_bound_bytes),
        _gib(placement.capacity_bytes),
        batch,
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
