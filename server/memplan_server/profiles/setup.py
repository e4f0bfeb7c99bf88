"""Wiring: from settings to a store of profiles."""

from __future__ import annotations

from memplan_server.profiles.database import Database
from memplan_server.profiles.store import SqlProfileStore
from memplan_server.settings import Settings

__all__ = ["make_profile_store"]


def make_profile_store(settings: Settings) -> SqlProfileStore:
    """The store of a server; whoever gets it closes it."""
    if settings.profile_store_url is not None:
        database = Database.of_server(settings.profile_store_url)
    else:
        database = Database.of_file(settings.data_dir)
    return SqlProfileStore(database, most=settings.profiles_kept)
