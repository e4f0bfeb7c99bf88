"""Answers as text for people: sections of a bar, tables and lists.

Without colours the parts of the bar differ by their letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from memplan.cli import measured
from memplan.cli.layout import INDENT, PHASES, listing, section, size, table
from memplan.types import (
    AccumulationPlan,
    BatchSizeRecommendation,
    EstimateMemoryResponse,
    GpuTarget,
    GpuType,
    MeasuredProfile,
    MemoryBreakdown,
    MemoryEstimate,
    Placement,
    PlanJobResponse,
    Verdict,
)

__all__ = [
    "accumulation",
    "batch_sizes",
    "estimate",
    "gpu_types",
    "plan",
]

_PARTS: dict[str, tuple[str, str, str]] = {
    "parameter_bytes": ("parameters", "blue", "P"),
    "gradient_bytes": ("gradients", "cyan", "G"),
    "optimizer_state_bytes": ("optimizer states", "magenta", "O"),
    "buffer_bytes": ("buffers", "bright_blue", "B"),
    "input_bytes": ("batch", "bright_cyan", "I"),
    "activation_bytes": ("activations", "green", "A"),
    "temporary_bytes": ("temporaries", "yellow", "T"),
    "autocast_copy_bytes": ("autocast copies", "bright_magenta", "C"),
    "workspace_bytes": ("workspaces", "bright_yellow", "W"),
    "context_bytes": ("CUDA context", "bright_black", "X"),
    "fragmentation_bytes": ("fragmentation", "red", "."),
}
"""Field of the breakdown: words, colour, character of its part of the bar."""

_VERDICTS = {
    Verdict.FITS: ("fits", "bold green"),
    Verdict.DOES_NOT_FIT: ("does not fit", "bold red"),
    Verdict.UNCERTAIN: ("uncertain", "bold yellow"),
    Verdict.UNSPECIFIED: ("unknown", ""),
}
_MOST_REMEDIES = 3
_WIDEST_BAR = 72


def plan(answer: PlanJobResponse, width: int) -> RenderableType:
    """Everything that PlanJob answers."""
    parts = [
        _memory(answer.estimate, width),
        *_measured(answer.profile, answer.estimate, width),
        *_measurement(answer),
        _placements(answer.placements, width),
        batch_sizes(answer.batch_sizes, width),
    ]
    if answer.accumulation is not None:
        parts.append(accumulation(answer.accumulation))
    return Group(*parts, *_grounds(answer.estimate, width))


def estimate(answer: EstimateMemoryResponse, width: int) -> RenderableType:
    """One estimate, and what was measured before."""
    return Group(
        _memory(answer.estimate, width),
        *_measured(answer.profile, answer.estimate, width),
        *_grounds(answer.estimate, width),
    )


def _measurement(answer: PlanJobResponse) -> list[RenderableType]:
    """What became of the time to measure in."""
    notes = listing(answer.measurement_notes)
    return [section("Measurement of the plan", *notes)] if notes else []


def _measured(
    profile: MeasuredProfile | None, estimate: MemoryEstimate, width: int
) -> list[RenderableType]:
    return [] if profile is None else [measured.beside(profile, estimate, width)]


def batch_sizes(answers: Sequence[BatchSizeRecommendation], width: int) -> RenderableType:
    """The largest and the recommended batch for each GPU."""
    rows = [
        (
            _gpu(one.gpu),
            f"{one.recommended_batch_size:,}" if one.recommended_batch_size else "none",
            size(one.recommended_device_used_bytes) if one.recommended_batch_size else "",
            f"{one.max_batch_size:,}" if one.max_batch_size else "none",
            f"{one.formula.batch_size:,}",
        )
        for one in answers
    ]
    headers = ("GPU", "recommended", "needs", "largest", "formula says")
    why = [f"{_gpu(one.gpu)}: {one.reason}" for one in answers if not one.max_batch_size]
    return section("Batch size", table(headers, rows, width, spare=headers[4:]), *listing(why))


def accumulation(answer: AccumulationPlan) -> RenderableType:
    """How a global batch is reached."""
    lines = []
    if answer.feasible:
        lines.append(f"{_arithmetic(answer)}; needs {size(answer.device_used_bytes)}")
    lines.append(answer.reason)
    points = answer.advice if answer.feasible else tuple(r.description for r in answer.remedies)
    return section(
        f"Global batch {answer.global_batch_size:,} on {_gpu(answer.gpu)}",
        *(Text(line) for line in lines if line),
        *listing(points),
    )


def gpu_types(types: Iterable[GpuType], width: int) -> RenderableType:
    """The catalog."""
    rows = [
        (
            one.name,
            size(one.total_bytes),
            size(one.usable_bytes),
            one.compute_capability,
            str(one.multiprocessor_count or ""),
        )
        for one in types
    ]
    return table(("GPU", "memory", "usable", "compute", "SMs"), rows, width + INDENT)


def _arithmetic(answer: AccumulationPlan) -> str:
    """`(17 x 60 + 4) x 2 ranks`, `16 x 64`: micro-batches that add up to the global batch."""
    steps, micro, last = (
        answer.accumulation_steps,
        answer.micro_batch_size,
        answer.last_micro_batch_size,
    )
    even = last == micro
    text = f"{steps} x {micro}" if even else f"{steps - 1} x {micro} + {last}"
    ranks = answer.data_parallel_size
    if ranks > 1:
        text = f"{text if even else f'({text})'} x {ranks} ranks"
    said = "1 step" if steps == 1 else f"{steps} steps"
    return f"micro-batch {micro}, {said}: {text} = {answer.global_batch_size:,}"


def _memory(answer: MemoryEstimate, width: int) -> RenderableType:
    confidence = f" ({answer.confidence:.0%} confidence)" if answer.confidence else ""
    phase = PHASES.get(answer.peak_phase)
    lines = [
        f"expected {size(answer.device_used_bytes)}, at most {size(answer.upper_bound_bytes)}"
        f"{confidence}",
        f"allocated {size(answer.peak_allocated_bytes)}, "
        f"reserved {size(answer.peak_reserved_bytes)}"
        + (f"; peak in the {phase}" if phase else ""),
    ]
    if answer.model_state.parameter_count:
        lines.append(f"{answer.model_state.parameter_count:,} parameters")
    title = f"Memory on {answer.gpu_type}, batch {answer.micro_batch_size}"
    return section(title, *map(Text, lines), Text(), *_breakdown(answer.breakdown, width))


def _breakdown(breakdown: MemoryBreakdown, width: int) -> list[RenderableType]:
    """A bar and its legend, largest part first."""
    amounts = {f.name: getattr(breakdown, f.name) for f in fields(breakdown)}
    total = sum(amounts.values())
    shown = [name for name in sorted(amounts, key=lambda n: -amounts[n]) if amounts[name] > 0]
    if total <= 0:
        return []
    length = max(10, min(_WIDEST_BAR, width - 2 * INDENT))
    legend = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        legend.add_column()
    for _ in range(2):
        legend.add_column(justify="right")
    for name in shown:
        words, colour, letter = _PARTS[name]
        share = f"{amounts[name] / total:.1%}"
        legend.add_row(Text(letter, style=f"reverse {colour}"), words, size(amounts[name]), share)
    return [_bar([(name, amounts[name]) for name in shown], total, length), Text(), legend]


def _bar(parts: Sequence[tuple[str, int]], total: int, length: int) -> Text:
    """Each part as many cells as its share, the rounding carried on so that they add up."""
    bar, done, end = Text(no_wrap=True), 0, 0
    for name, amount in parts:
        done += amount
        start, end = end, round(done * length / total)
        _, colour, letter = _PARTS[name]
        bar.append(letter * (end - start), style=f"reverse {colour}")
    return bar


def _placements(placements: Sequence[Placement], width: int) -> RenderableType:
    rows = []
    for one in placements:
        words, style = _VERDICTS[one.verdict]
        missing = one.missing_bytes
        rows.append(
            (
                _gpu(one.gpu),
                Text(words, style=style),
                size(one.device_used_bytes),
                size(one.upper_bound_bytes),
                size(one.capacity_bytes),
                f"-{size(missing)}" if missing else size(one.spare_bytes),
            )
        )
    headers = ("GPU", "verdict", "expected", "at most", "capacity", "to spare")
    spare = ("to spare", "expected")  # what follows from the others, or says less
    notes = [_note(one) for one in placements if one.verdict is not Verdict.FITS]
    return section("Placement", table(headers, rows, width, left=2, spare=spare), *listing(notes))


def _note(one: Placement) -> str:
    remedies = "; ".join(r.description for r in one.remedies[:_MOST_REMEDIES])
    return f"{_gpu(one.gpu)}: {one.reason}{f' Remedy: {remedies}.' if remedies else ''}"


def _grounds(answer: MemoryEstimate, width: int) -> list[RenderableType]:
    """What the estimate rests on: modules, assumptions, versions."""
    versions = ", ".join(f"{k} {v}" for k, v in sorted(answer.library_versions.items()))
    modules = [
        (one.module or "(the model)", one.type, size(one.activation_bytes))
        for one in answer.top_modules
    ]
    sections = []
    if modules:
        headers = ("module", "type", "bytes")
        modules_table = table(headers, modules, width, left=2, spare=("type",))
        sections.append(section("Most activations", modules_table))
    if answer.assumptions:
        sections.append(section("Assumptions", *listing(answer.assumptions)))
    if versions:
        sections.append(section("Holds for", Text(versions)))
    return sections


def _gpu(target: GpuTarget) -> str:
    if target.free_bytes is None:
        return target.gpu_type
    return f"{target.gpu_type} ({size(target.free_bytes)} free)"
