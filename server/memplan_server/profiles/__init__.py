"""Measured profiles that last: in a SQLite file or in PostgreSQL."""

from memplan_server.profiles.interface import ProfilePage, ProfileStore

__all__ = ["ProfilePage", "ProfileStore"]
