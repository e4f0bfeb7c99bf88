"""What the server knows of GPU types: the catalog, and what stored profiles taught.

    known = knowledge.now()
    known.catalog.get("nvidia-t4").context_bytes    # as measured, from enough profiles on
    known.learned                                   # residuals, for the bounds

Learned anew when the store has changed, in a thread of its own: a call waits for it a moment, and
then goes on with what was known before.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from memplan_server import planning
from memplan_server.gpus.catalog import GpuCatalog
from memplan_server.planning import Learned
from memplan_server.profiles import ProfileStore

__all__ = ["Knowledge", "Known"]

log = logging.getLogger(__name__)

PATIENCE_AT_START_S = 5.0
PATIENCE_S = 0.5
"""What a call waits at most for what a new profile teaches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What is known at one time."""

    catalog: GpuCatalog
    """With the contexts that were learned."""
    learned: Learned


class Knowledge:
    """Safe to use from several threads."""

    def __init__(self, catalog: GpuCatalog, profiles: ProfileStore, *, version: str) -> None:
        """`version` names the code and libraries that estimates come from now."""
        self._shipped = catalog
        self._profiles = profiles
        self._estimates = version
        self._lock = threading.Lock()
        self._known = Known(catalog=catalog, learned=planning.NOTHING_LEARNED)
        self._learned_from: int | None = None
        self._version = 0
        self._under_way: Future[None] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="memplan-learn")
        begun = self._start()
        assert begun is not None
        wait([begun], PATIENCE_AT_START_S)

    def now(self) -> Known:
        """What is known, of the newest profiles where that does not take long."""
        begun = self._start()
        if begun is not None:
            wait([begun], PATIENCE_S)
        return self._known

    def version(self) -> tuple[int, int]:
        """Changes with what is known, and with the profiles it is to be learned from."""
        return self._profiles.version(), self._version

    def stop(self) -> None:
        """Learn nothing more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> Future[None] | None:
        """Have it learned anew where the store has changed.

        None where it has not, and for those who come while it is under way: only one waits.
        """
        with self._lock:
            busy = self._under_way is not None and not self._under_way.done()
            if busy or self._learned_from == self._profiles.version():
                return None
            self._under_way = self._pool.submit(self._learn)
            return self._under_way

    def _learn(self) -> None:
        version = self._profiles.version()
        try:
            known = self._anew()
        except Exception:  # whatever is wrong with stored profiles, the catalog is there
            log.exception("nothing could be learned from the stored profiles")
            known = self._known
        with self._lock:
            changed = known != self._known
            self._known, self._learned_from = known, version
            self._version += changed

    def _anew(self) -> Known:
        gpu_types, rows = [], {}
        for shipped in self._shipped.all():
            profiles = self._profiles.recent(shipped.name)
            gpu_type = planning.with_learned_context(shipped, profiles)
            gpu_types.append(gpu_type)
            found = planning.residuals(
                profiles, gpu_type, slack_bytes=planning.slack_bytes(), version=self._estimates
            )
            rows.update({(gpu_type.name, family): of for family, of in found.items()})
        return Known(catalog=GpuCatalog(gpu_types), learned=Learned(rows))
