"""The models that can be named.

A worker knows them, because only workers import the model libraries; it is asked once for each set
of library versions, and the store keeps the answer.
"""

from __future__ import annotations

import difflib
import json

from memplan_server.calls import Call
from memplan_server.errors import UnknownName
from memplan_server.flights import Flight, Flights, then
from memplan_server.store import Store
from memplan_server.timelines import simulation_version
from memplan_server.workers import Workers

__all__ = ["ModelNames"]

Names = tuple[str, ...]

UNLISTED = "timm/"
"""Begins names that may be right without being listed."""
TIME_LIMIT_S = 120.0
"""Long enough to import every model library from a cold disk."""


class ModelNames:
    """Names `library/model`, sorted. Safe to use from several threads."""

    def __init__(self, *, workers: Workers, store: Store) -> None:
        self._workers = workers
        self._store = store
        self._names: Names = ()
        self._flights: Flights[Names] = Flights()

    def all(self, call: Call) -> Names:
        """Every name. May take some seconds the first time."""
        if not self._names:
            self._names = self._stored() or self._flights.result("names", self._ask, call)
        return self._names

    def check(self, name: str, call: Call) -> None:
        """Raise UnknownName, with the nearest ones, when there is no such model.

        timm's models have names that are not listed: earlier ones, and those with the tag of
        pretrained weights, `timm/vit_base_patch16_224.dino`. Where they are built, wrong ones are
        noticed.
        """
        if name.startswith(UNLISTED):
            return
        names = self.all(call)
        if name not in names:
            raise UnknownName("model", name, _nearest(name, names))

    def _stored(self) -> Names:
        data = self._store.get(_key())
        return tuple(json.loads(data)) if data is not None else ()

    def _ask(self) -> Flight[Names]:
        work = self._workers.submit("list_models", time_limit_s=TIME_LIMIT_S)
        return Flight(then(work.future, self._keep), work.cancel)

    def _keep(self, names: Names) -> Names:
        self._store.put([_key()], json.dumps(names).encode())
        return names


def _key() -> str:
    return f"models/{simulation_version()}"


def _nearest(name: str, names: Names) -> Names:
    """Up to three names like it: of its library first, then of any, by the part that follows."""
    close = difflib.get_close_matches(name, names, n=3)
    if not close:
        by_model = {n.partition("/")[2]: n for n in reversed(names)}
        model = name.rpartition("/")[2]
        close = [by_model[m] for m in difflib.get_close_matches(model, by_model, n=3)]
    return tuple(close)
