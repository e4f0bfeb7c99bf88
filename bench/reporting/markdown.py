"""Markdown, as a page and as a terminal show it."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["mib", "percent", "signed", "table"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells padded to columns; the first column to the left, numbers in the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    right = [i > 0 and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    lines = [_line(header, widths, right)]
    lines.append("|" + "|".join(_rule(w, r) for w, r in zip(widths, right, strict=True)) + "|")
    lines += [_line(row, widths, right) for row in rows]
    return "\n".join(lines)


def _is_number(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell[0] in "+-"


def _rule(width: int, right: bool) -> str:
    return "-" * (width + 1) + ":" if right else "-" * (width + 2)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "| " + " | ".join(padded) + " |"


def percent(share: float) -> str:
    """0.0123 as `1.23 %`; whole hundreds and thousands without decimals."""
    value = 100 * share
    return f"{value:.2f} %" if abs(value) < 100 else f"{value:,.0f} %"


def signed(share: float) -> str:
    """As `percent`, with the sign."""
    return ("+" if share >= 0 else "") + percent(share)


def mib(nbytes: int) -> str:
    """Mebibytes, `1,234`."""
    return f"{nbytes / 2**20:,.0f}"
