"""Hypothesis strategies for any message of the contract, made from its descriptor.

@given(instances(TrainingJob))
def test_something(job: TrainingJob) -> None: ...
"""

from __future__ import annotations

import functools
from datetime import UTC, timedelta
from typing import Any

from hypothesis import strategies as st

from memplan._schema import Field, Kind, schema_of

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_WHOLE = st.integers(-(2**53), 2**53)
_LEAVES = st.none() | st.booleans() | _WHOLE | st.floats(allow_nan=False) | _TEXT


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return inner | st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3)


_PLAIN = _nested(_nested(_LEAVES))
_MAX_LEVELS = 6


@functools.cache
def instances(cls: type[Any], *, level: int = 0) -> st.SearchStrategy[Any]:
    """Any instance of a dataclass of `memplan.types`, at most one member of each oneof set."""
    return _data(cls, level).map(lambda values: cls(**values))


def _data(cls: type[Any], level: int) -> st.SearchStrategy[dict[str, Any]]:
    schema = schema_of(cls)
    members = {name for names in schema.oneofs for name in names}
    plain = {f.name: _values(f, level) for f in schema.fields if f.name not in members}
    parts: list[st.SearchStrategy[dict[str, Any]]] = [st.fixed_dictionaries({}, optional=plain)]
    for names in schema.oneofs:
        options = [schema.by_name[name] for name in names]
        fit = [
            f
            for f in options
            if level < _MAX_LEVELS or f.type.__name__ not in ("Residual", "GraphArgumentList")
        ]
        choices = [st.fixed_dictionaries({f.name: _element(f, level)}) for f in fit]
        parts.append(st.one_of(st.just({}), *choices))
    return st.tuples(*parts).map(
        lambda pieces: {k: v for piece in pieces for k, v in piece.items()}
    )


def _values(field: Field, level: int) -> st.SearchStrategy[Any]:
    element = _element(field, level)
    if field.is_map:
        return st.dictionaries(_TEXT, element, max_size=3)
    if field.repeated:
        return st.lists(element, max_size=3).map(tuple)
    return st.none() | element if field.optional else element


def _element(field: Field, level: int) -> st.SearchStrategy[Any]:
    if field.kind is Kind.MESSAGE:
        return st.deferred(lambda: instances(field.type, level=level + 1))
    if field.kind is Kind.ENUM:
        return st.sampled_from(sorted(field.enum_numbers))
    if field.kind is Kind.STRUCT:
        return st.dictionaries(_TEXT, _PLAIN, max_size=3)
    if field.kind is Kind.DURATION:
        return st.timedeltas(timedelta(days=-3_000_000), timedelta(days=3_000_000))
    if field.kind is Kind.TIMESTAMP:
        return st.datetimes(timezones=st.just(UTC))
    if field.type is int:
        limit = 2 ** (field.bits - 1)
        return st.integers(-limit, limit - 1)
    return {bool: st.booleans(), float: st.floats(allow_nan=False), str: _TEXT}[field.type]
