"""What keeps measured profiles, as the planner sees it.

profile = store.add(profile)                        # with its profile_id
store.newest(profile.job_digest, "nvidia-t4", 64)   # what to show beside an estimate
key = (request, store.version())                    # for what is derived from profiles
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from memplan.types import MeasuredProfile

__all__ = ["ProfilePage", "ProfileStore"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfilePage:
    """Some of the profiles, newest first, without their curves."""

    profiles: tuple[MeasuredProfile, ...] = ()
    next_after: str = ""
    """What the next page comes after; empty on the last one."""


class ProfileStore(Protocol):
    """Profiles that last. Safe to use from several threads.

    A database that fails never fails what was measured or estimated: `add`, `newest`, `recent` and
    `version` raise nothing and do without. `get` and `page` raise `StoreFailure`.
    """

    def add(self, profile: MeasuredProfile) -> MeasuredProfile:
        """Keep a profile; returns it with its `profile_id`.

        One that has an id keeps it, and changes nothing where that id is there already. A profile
        that could not be kept comes back as it was.
        """
        ...

    def get(self, profile_id: str) -> MeasuredProfile:
        """A profile with its curve. Raises UnknownName, StoreFailure."""
        ...

    def page(
        self, *, size: int, after: str = "", gpu_type: str = "", job_digest: str = ""
    ) -> ProfilePage:
        """At most `size` profiles, newest first by (create_time, profile_id).

        `after` is the `next_after` of the page before; `gpu_type` (catalog name) and `job_digest`
        are what they must have, where given. Raises StoreFailure.
        """
        ...

    def newest(
        self, job_digest: str, gpu_type: str, micro_batch_size: int
    ) -> MeasuredProfile | None:
        """What a job took at a micro-batch size, without its curve; None where that is not known.

        Measured on that GPU type rather than on the CPU, to its end rather than out of memory, and
        then the newest one.
        """
        ...

    def recent(self, gpu_type: str) -> tuple[MeasuredProfile, ...]:
        """The newest profiles measured on GPUs of a type (CUDA only), newest first, without their
        curves; those that ran out of memory too. At most `MOST_RECENT`."""
        ...

    def version(self) -> int:
        """Changes whenever what `newest` and `recent` answer may have changed.

        Only equality counts, within this process. Costs nothing, asks no database. What another
        server adds to a shared database shows in about a second.
        """
        ...
