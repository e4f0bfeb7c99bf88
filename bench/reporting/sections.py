"""The tables of the page, from scored rows. Every function gives Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from measured import CORPUS, TIMM_A100
from reporting import families
from reporting.answers import PEERS
from reporting.goals import Goal
from reporting.markdown import mib, percent, signed, table
from reporting.scores import (
    ALLOCATED,
    DRIVER_USED,
    RESERVED,
    Fits,
    Scored,
    bounds,
    fits,
    most_right,
    summary,
    with_constants,
)
from reporting.spoiled import sound

__all__ = [
    "BATCH_SIZES",
    "batch_size_class",
    "beside_peers",
    "bounds_held",
    "by_table",
    "errors_by",
    "family_order",
    "fits_or_not",
    "goals_table",
    "own_corpus",
    "verdicts",
    "worst",
    "wrong_answers",
]

BATCH_SIZES = ((1, 1), (2, 8), (9, 32), (33, 128), (129, 1 << 30))
_ERRORS = ("rows", "median", "mean", "p90", "p95", "worst", "bias", "too low")


def goals_table(goals: Sequence[Goal]) -> str:
    """What is to be reached and what is."""
    rows = [(g.measure, g.to_reach, g.found or "-", g.verdict) for g in goals]
    return table(("measure", "goal", "found", ""), rows)


def by_table(items: Sequence[Scored]) -> str:
    """Driver-used errors of each table; of its models where they are few."""
    rows = []
    for name, some in _groups(items, lambda s: s.row.table):
        models = _groups(some, lambda s: f"{s.row.model}, {s.row.gpu_type}")
        if name != CORPUS and len(models) <= 12:
            rows += [_errors_row(f"{name}: {m}", _driver_used(those)) for m, those in models]
        rows.append(_errors_row(f"{name}: all", _driver_used(some)))
    return table(("driver-used", *_ERRORS), rows)


def own_corpus(items: Sequence[Scored]) -> str:
    """The three quantities of the corpus, apart, and by family; empty without lines."""
    own = [s for s in items if s.row.table == CORPUS]
    rows = []
    for quantity in (ALLOCATED, RESERVED, DRIVER_USED):
        some = [s for s in own if s.measured(quantity) is not None]
        groups = _groups(some, lambda s: s.prediction.family)
        if some:
            rows.append(_errors_row(f"{quantity}: all", [s.error(quantity) for s in some]))
        rows += [
            _errors_row(f"{quantity}: {name}", [s.error(quantity) for s in those])
            for name, those in groups
        ]
    return table(("own corpus", *_ERRORS), rows) if rows else ""


def beside_peers(items: Sequence[Scored]) -> str:
    """Errors of driver-used bytes by every way there is, for each table, on the same rows."""
    rows = []
    for name, some in _groups(items, lambda s: s.row.table):
        answered = [s for s in some if len(s.prediction.peers) == len(PEERS)]
        if not answered:
            continue
        rows.append(_errors_row(f"{name}: memplan", _driver_used(answered)))
        rows += [_errors_row(f"{name}: {way}", e) for way, e in _ways(answered) if e]
    return table(("driver-used", *_ERRORS), rows) if rows else ""


def _ways(items: Sequence[Scored]) -> Iterable[tuple[str, list[float]]]:
    """What stands beside memplan: its own reserved bytes and each peer."""
    if items[0].row.table != TIMM_A100:  # there it is the same
        own = with_constants(items, _reserved)
        yield "memplan, reserved + constant", own
    if all(s.row.fake_tensor_bytes is not None for s in items):
        yield (
            "fake-tensor peak of the table + constant",
            with_constants(
                items, lambda s: (s.row.fake_tensor_bytes or 0) + s.prediction.loader_bytes
            ),
        )
    for peer in PEERS:
        yield peer, [s.prediction.peers[peer] / (s.row.driver_used_bytes or 1) - 1 for s in items]
        yield f"{peer} + constant", with_constants(items, _answer_of(peer))


def _reserved(item: Scored) -> int:
    """With what the data loader holds, as the peers' answers have it."""
    return item.prediction.peak_reserved_bytes + item.prediction.loader_bytes


def _answer_of(peer: str) -> Callable[[Scored], int]:
    return lambda s: s.prediction.peers[peer]


def fits_or_not(items: Sequence[Scored]) -> str:
    """Which rows fit, in tables that know it of some; peers with the limit that suits them best,
    and so our own reserved bytes beside them."""
    rows = []
    for name, some in _asked(items):
        rows.append(_fits_row(f"{name}: memplan", fits(some, lambda s: s.prediction.fits)))
        answered = [s for s in some if len(s.prediction.peers) == len(PEERS)]
        if len({s.row.gpu_type for s in some}) > 1:
            continue
        own = most_right(some, _reserved)
        rows.append(_fits_row(f"{name}: memplan, reserved, best limit", own))
        if answered:
            for peer in PEERS:
                found = most_right(answered, _answer_of(peer))
                rows.append(_fits_row(f"{name}: {peer}, best limit", found))
    header = ("", "rows", "right", "ran, said to fit", "failed, said not to fit")
    return table(header, rows) if rows else ""


def _asked(items: Iterable[Scored]) -> list[tuple[str, list[Scored]]]:
    """Tables of which some rows ran out of memory."""
    grouped = _groups(items, lambda s: s.row.table)
    return [(name, some) for name, some in grouped if not all(s.row.ran for s in some)]


def _fits_row(name: str, found: Fits) -> tuple[str, ...]:
    return (
        name,
        str(found.count),
        percent(found.right),
        f"{found.ran_right} of {found.ran}",
        f"{found.failed_right} of {found.failed}",
    )


def verdicts(items: Sequence[Scored]) -> str:
    """What the bounds say of the rows that ran and of those that did not."""
    rows = []
    for table_name, some in _asked(items):
        for verdict in ("FITS", "UNCERTAIN", "DOES_NOT_FIT"):
            said = [s for s in some if _verdict(s) == verdict]
            ran = sum(s.row.ran for s in said)
            rows.append((f"{table_name}: {verdict}", str(ran), str(len(said) - ran)))
    return table(("verdict", "ran", "ran out of memory"), rows) if rows else ""


def _verdict(item: Scored) -> str:
    """As a placement says it."""
    expected = item.prediction
    if expected.upper_bound_bytes <= expected.capacity_bytes:
        return "FITS"
    above = expected.lower_bound_bytes > expected.capacity_bytes
    return "DOES_NOT_FIT" if above and not expected.fits else "UNCERTAIN"


def bounds_held(items: Sequence[Scored]) -> str:
    """How often each bound is broken, and how high the upper one is."""
    rows = []
    grouped = _groups(items, lambda s: s.row.table)
    for name, some in [*grouped, ("all", items), ("all but spoiled rows", sound(items))]:
        if not some:
            continue
        found = bounds(some)
        rows.append(
            (
                name,
                str(found.count),
                percent(found.above_upper / found.count),
                percent(found.below_lower / found.count),
                percent(found.height),
            )
        )
    header = ("driver-used", "rows", "above the upper", "below the lower", "median height")
    return table(header, rows)


def errors_by(title: str, items: Sequence[Scored], key: Callable[[Scored], str]) -> str:
    """Driver-used errors of all tables together, by a property of the row."""
    rows = []
    order = [*family_order(items), *map(_spoken, BATCH_SIZES)]
    rank = {name: place for place, name in enumerate(order)}
    groups = sorted(_groups(items, key), key=lambda group: (rank.get(group[0], -1), group[0]))
    for name, some in groups:
        found = bounds(some)
        held = percent(found.above_upper / found.count)
        errors = _errors_row(name, _driver_used(some))
        rows.append((*errors, held, percent(found.height)))
    return table((title, *_ERRORS, "above the upper", "median height"), rows)


def batch_size_class(item: Scored) -> str:
    """`2 to 8`."""
    size = item.row.job.micro_batch_size
    return _spoken(next((low, high) for low, high in BATCH_SIZES if low <= size <= high))


def _spoken(sizes: tuple[int, int]) -> str:
    low, high = sizes
    if low == high:
        return str(low)
    return f"{low} to {high}" if high < BATCH_SIZES[-1][1] else f"{low} and more"


def family_order(items: Sequence[Scored]) -> list[str]:
    """The families that occur: derived ones in their order, then the corpus's by name."""
    found = {s.prediction.family for s in items}
    derived = [name for name in families.DERIVED if name in found]
    return [*derived, *sorted(found - set(derived))]


def worst(items: Sequence[Scored], count: int) -> str:
    """The rows with the largest errors of driver-used bytes."""
    measured = [s for s in items if s.row.driver_used_bytes is not None]
    largest = sorted(measured, key=lambda s: -abs(s.error()))[:count]
    rows = [
        (
            s.row.table,
            s.row.model,
            str(s.row.job.micro_batch_size),
            s.prediction.family,
            mib(s.row.driver_used_bytes or 0),
            mib(s.predicted(DRIVER_USED)),
            f"{1 + s.error():.3f}",
        )
        for s in largest
    ]
    header = ("table", "model", "batch", "family", "measured MiB", "predicted MiB", "ratio")
    return table(header, rows)


def wrong_answers(items: Sequence[Scored]) -> str:
    """Rows that were said to fit and failed, or the other way round."""
    asked = [s for _, some in _asked(items) for s in some]
    wrong = [s for s in asked if s.prediction.fits is not s.row.ran]
    rows = [
        (
            s.row.model,
            str(s.row.job.micro_batch_size),
            s.prediction.family,
            "ran" if s.row.ran else "failed",
            mib(s.prediction.device_used_bytes),
            mib(s.prediction.capacity_bytes),
        )
        for s in wrong
    ]
    header = ("wrong about", "batch", "family", "it", "predicted MiB", "capacity MiB")
    return table(header, rows) if rows else ""


def _groups(
    items: Iterable[Scored], key: Callable[[Scored], str]
) -> list[tuple[str, list[Scored]]]:
    grouped: dict[str, list[Scored]] = defaultdict(list)
    for item in items:
        grouped[key(item)].append(item)
    return list(grouped.items())


def _driver_used(items: Iterable[Scored]) -> list[float]:
    return [s.error() for s in items]


def _errors_row(name: str, errors: Sequence[float]) -> tuple[str, ...]:
    found = summary(errors)
    sizes = (found.median, found.mean, found.p90, found.p95, found.worst)
    return name, str(found.count), *map(percent, sizes), signed(found.bias), percent(found.under)
