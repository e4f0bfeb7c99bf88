"""The plots of the page: SVG files that are the same for the same figures.

    names = draw(items, folder)     # {"predicted-measured": "what it shows", ...} by file stem

Colours are those of Okabe and Ito, which colour-blind readers tell apart; markers differ too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from measured import BRACKETS
from reporting.answers import PEERS
from reporting.scores import (
    ALLOCATED,
    DRIVER_USED,
    RESERVED,
    Scored,
    with_constants,
)
from reporting.sections import family_order

__all__ = ["draw"]

_STYLE: Any = {
    "svg.hashsalt": "memplan",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
_COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999999",
)  # fmt: skip
_MARKERS = "osD^vP*X"
_GIB = 1 << 30
_POINT: dict[str, Any] = {"linestyle": "none", "markersize": 4, "alpha": 0.6, "markeredgewidth": 0}
_WHISKERS = (5, 95)
_VECTORS = 1000
"""Points that a plot draws one by one; more are one image, which is smaller then."""
_BESIDE = 0.1
"""Doublings of the batch size by which families stand beside each other."""
_QUANTITIES = {
    ALLOCATED: "peak allocated",
    RESERVED: "peak reserved",
    DRIVER_USED: "driver-used",
}


def draw(items: Sequence[Scored], folder: Path) -> dict[str, str]:
    """Write what there are figures for; stems of the files and what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    measured = [s for s in items if s.row.driver_used_bytes is not None]
    plots: dict[str, tuple[str, Callable[[], Any]]] = {
        "predicted-measured": (
            "Predicted against measured, by quantity and family; the dotted lines are 10 % off",
            lambda: _predicted_measured(items),
        ),
        "error-batch-size": (
            "Error of driver-used bytes against batch size",
            lambda: _error_batch_size(measured),
        ),
        "error-groups": (
            "Error of driver-used bytes by family, GPU and precision: box to the quartiles, "
            "whiskers to the 5th and 95th percentile",
            lambda: _error_groups(measured),
        ),
        "peers": (
            "Size of the error of driver-used bytes by every way there is, on the same rows",
            lambda: _peers(measured),
        ),
    }
    drawn = {}
    for stem, (caption, plot) in plots.items():
        with mpl.rc_context(_STYLE):
            figure = plot()
            if figure is not None:
                _save(figure, folder / f"{stem}.svg")
                drawn[stem] = caption
    return drawn


def _save(figure: Any, path: Path) -> None:
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(path, metadata=nothing, bbox_inches="tight", dpi=200)
    plt.close(figure)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n")


def _style_of(items: Sequence[Scored], points: int) -> dict[str, dict[str, Any]]:
    """Keyword arguments of each family's points, of which the plot has so many in all."""
    return {
        name: {
            "color": _COLOURS[i % 8],
            "marker": _MARKERS[(i + i // 8) % 8],
            "rasterized": points > _VECTORS,
        }
        for i, name in enumerate(family_order(items))
    }


def _predicted_measured(items: Sequence[Scored]) -> Any:
    """One panel for each quantity that was measured."""
    panels = {
        quantity: [s for s in items if s.measured(quantity) is not None]
        for quantity in (ALLOCATED, RESERVED, DRIVER_USED)
    }
    panels = {quantity: some for quantity, some in panels.items() if some}
    if not panels:
        return None
    styles = _style_of(
        [s for s in items if s.row.table != BRACKETS], sum(map(len, panels.values()))
    )
    figure, all_axes = plt.subplots(1, len(panels), figsize=(5.6 * len(panels), 5.0), squeeze=False)
    for axes, (quantity, some) in zip(all_axes[0], panels.items(), strict=True):
        _panel(axes, quantity, some, styles)
    all_axes[0][0].legend(fontsize=9, loc="upper left", handletextpad=0.2)
    return figure


def _panel(
    axes: Any, quantity: str, items: Sequence[Scored], styles: Mapping[str, Mapping[str, Any]]
) -> None:
    for name, style in styles.items():
        some = [s for s in items if s.prediction.family == name]
        measured = [(s.measured(quantity) or 0) / _GIB for s in some]
        predicted = [s.predicted(quantity) / _GIB for s in some]
        axes.plot(measured, predicted, label=name, **style, **_POINT)
    values = [(s.measured(quantity) or 0) / _GIB for s in items]
    values += [s.predicted(quantity) / _GIB for s in items]
    ends = [min(values) * 0.8, max(values) * 1.25]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    for share in (0.9, 1.1):
        axes.plot(ends, [share * e for e in ends], color="black", linewidth=0.6, linestyle=":")
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    axes.set_xlabel(f"{_QUANTITIES[quantity]}, measured (GiB)")
    axes.set_ylabel("predicted (GiB)")
    for axis in (axes.xaxis, axes.yaxis):
        _plain_ticks(axis, (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128))
    axes.grid(linewidth=0.3)


def _plain_ticks(axis: Any, values: Sequence[float]) -> None:
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _error_batch_size(items: Sequence[Scored]) -> Any:
    if not items:
        return None
    figure, axes = plt.subplots(figsize=(8.0, 4.6))
    styles = _style_of(items, len(items))
    for place, (name, style) in enumerate(styles.items()):
        some = [s for s in items if s.prediction.family == name]
        beside = 2 ** (_BESIDE * (place - (len(styles) - 1) / 2))
        sizes = [s.row.job.micro_batch_size * beside for s in some]
        axes.plot(sizes, [100 * s.error() for s in some], label=name, **style, **_POINT)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    _plain_ticks(axes.xaxis, [2**n for n in range(13)])
    axes.set_xlabel("batch size (samples)")
    _error_axis(axes, axes.yaxis)
    axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)
    return figure


def _error_axis(axes: Any, axis: Any) -> None:
    """Linear within 1 %, logarithmic beyond."""
    vertical = axis is axes.yaxis
    (axes.set_yscale if vertical else axes.set_xscale)("symlog", linthresh=1, linscale=0.6)
    _plain_ticks(axis, (-50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50, 100))
    (axes.set_ylabel if vertical else axes.set_xlabel)("error: predicted / measured - 1 (%)")
    axes.grid(axis="y" if vertical else "x", linewidth=0.3)


def _error_groups(items: Sequence[Scored]) -> Any:
    if not items:
        return None
    keys: dict[str, Callable[[Scored], str]] = {
        "family": lambda s: s.prediction.family,
        "GPU": lambda s: s.row.gpu_type.removeprefix("nvidia-"),
        "precision": lambda s: s.row.job.precision.value,
    }
    groups = {title: _grouped(items, key) for title, key in keys.items()}
    groups["family"] = {n: groups["family"][n] for n in family_order(items)}
    counts = [len(g) for g in groups.values()]
    figure, all_axes = plt.subplots(
        len(groups),
        1,
        figsize=(8.0, 1.0 + 0.45 * sum(counts)),
        sharex=True,
        height_ratios=[c + 0.6 for c in counts],
        layout="constrained",
    )
    for axes, (title, some) in zip(all_axes, groups.items(), strict=True):
        labels = [f"{name} ({len(errors)})" for name, errors in some.items()]
        _boxes(axes, labels, list(some.values()))
        axes.axvline(0, color="black", linewidth=0.8)
        _error_axis(axes, axes.xaxis)
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        if axes is not all_axes[-1]:
            axes.set_xlabel("")
    return figure


def _grouped(items: Sequence[Scored], key: Callable[[Scored], str]) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = {}
    for item in items:
        grouped.setdefault(key(item), []).append(100 * item.error())
    return dict(sorted(grouped.items()))


def _boxes(axes: Any, labels: Sequence[str], values: Sequence[Sequence[float]]) -> None:
    axes.boxplot(
        values,
        orientation="horizontal",
        whis=_WHISKERS,
        showfliers=False,
        widths=0.6,
        patch_artist=True,
        boxprops={"facecolor": "#CFE3F1", "edgecolor": _COLOURS[0]},
        medianprops={"color": _COLOURS[3], "linewidth": 1.8},
        whiskerprops={"color": _COLOURS[0]},
        capprops={"color": _COLOURS[0]},
    )
    axes.set_yticks(range(1, len(labels) + 1), labels)
    axes.invert_yaxis()


def _peers(items: Sequence[Scored]) -> Any:
    """A panel for each table, a box for each way."""
    tables: dict[str, list[Scored]] = {}
    for item in items:
        if len(item.prediction.peers) == len(PEERS):
            tables.setdefault(item.row.table, []).append(item)
    if not tables:
        return None
    figure, all_axes = plt.subplots(
        len(tables),
        1,
        figsize=(8.0, 1.0 + 1.9 * len(tables)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axes, (name, some) in zip(all_axes[:, 0], tables.items(), strict=True):
        ways = {"memplan": [s.error() for s in some]}
        for peer in PEERS:
            ways[f"{peer} + constant"] = with_constants(some, _answer_of(peer))
        sizes = [[max(0.01, 100 * abs(e)) for e in errors] for errors in ways.values()]
        _boxes(axes, list(ways), sizes)
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis, (0.01, 0.1, 1, 10, 100))
        axes.grid(axis="x", linewidth=0.3)
        axes.set_title(f"{name} ({len(some)} rows)", loc="left", fontsize=10, fontweight="bold")
    all_axes[-1][0].set_xlabel("size of the error (%)")
    return figure


def _answer_of(peer: str) -> Callable[[Scored], int]:
    return lambda s: s.prediction.peers[peer]
