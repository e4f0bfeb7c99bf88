"""How text for people is laid out: sections, tables and lists, and sizes in words.

The console is rich's: it respects the width of the terminal, NO_COLOR and pipes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memplan.types import Phase, TrainingJob

__all__ = ["INDENT", "PHASES", "console", "job_title", "listing", "section", "size", "table"]

INDENT = 2
"""Cells by which the parts of a section are moved in."""
PHASES = {
    Phase.FORWARD: "forward pass",
    Phase.BACKWARD: "backward pass",
    Phase.OPTIMIZER_STEP: "optimizer step",
}
"""What the phases of a step are called."""
_GAP = 2


def console() -> Console:
    """A console on stdout that takes text as it is."""
    return Console(file=sys.stdout, markup=False, emoji=False, highlight=False, soft_wrap=False)


def size(count: int) -> str:
    """Bytes for people: `6.20 GiB`, `97.5 MiB`, `512 B`."""
    if abs(count) >= 1 << 30:
        return f"{count / (1 << 30):,.2f} GiB"
    if abs(count) >= 1 << 20:
        return f"{count / (1 << 20):.1f} MiB"
    return f"{count / 1024:.1f} KiB" if abs(count) >= 1024 else f"{count} B"


def job_title(job: TrainingJob) -> RenderableType:
    """The job in a line: `torchvision/resnet50, batch 64, adam, fp32`."""
    catalog = job.model.catalog
    parts = [
        catalog.name if catalog else job.model.graph.name if job.model.graph else "layer stack",
        f"batch {job.micro_batch_size}" if job.micro_batch_size else "",
        job.optimizer.type.value if job.optimizer.type.name != "UNSPECIFIED" else "sgd",
        job.precision.value if job.precision.name != "UNSPECIFIED" else "fp32",
    ]
    return Text(", ".join(filter(None, parts)), style="bold")


def section(title: str, *parts: RenderableType) -> RenderableType:
    """A title and what belongs to it, after an empty line."""
    return Group(
        Text(), Text(title, style="bold underline"), Padding(Group(*parts), (0, 0, 0, INDENT))
    )


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    width: int,
    *,
    left: int = 1,
    spare: Sequence[str] = (),
) -> RenderableType:
    """A table, its first `left` columns aligned left.

    Where it is wider than `width` it does without the columns named in `spare`, one after the
    other; where that is not enough it is a list with all of them.
    """
    texts = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    for count in range(len(spare) + 1):
        kept = [i for i, header in enumerate(headers) if header not in spare[:count]]
        shown = [[row[i] for i in kept] for row in texts]
        names = [headers[i] for i in kept]
        if _width(names, shown) <= width - INDENT:
            return _grid(names, shown, sum(i < left for i in kept))
    return Group(*listing(_in_words(headers, row) for row in texts))


def _width(headers: Sequence[str], rows: Sequence[Sequence[Text]]) -> int:
    columns = zip([Text(header) for header in headers], *rows, strict=True)
    width: int = sum(max(cell.cell_len for cell in column) + _GAP for column in columns) - _GAP
    return width


def _grid(headers: Sequence[str], rows: Sequence[Sequence[Text]], left: int) -> RenderableType:
    grid = Table(box=None, pad_edge=False, header_style="dim", padding=(0, _GAP, 0, 0))
    for index, header in enumerate(headers):
        grid.add_column(header, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    return grid


def _in_words(headers: Sequence[str], row: Sequence[Text]) -> str:
    cells = zip(headers[1:], row[1:], strict=True)
    return f"{row[0]}: " + ", ".join(f"{header} {cell}" for header, cell in cells if cell.plain)


def listing(lines: Iterable[str]) -> list[RenderableType]:
    """One item a line, folded where it is longer."""
    items: list[RenderableType] = []
    for line in lines:
        row = Table.grid()
        row.add_column(width=cell_len("- "))
        row.add_column(overflow="fold")
        row.add_row("- ", line)
        items.append(row)
    return items
