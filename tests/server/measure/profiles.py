"""Profiles for those who do not listen."""

from __future__ import annotations

from memplan_server.measure.profile import profile
from memplan_server.measure.profiled import Profiled
from memplan_server.measure.request import Request


def profile_quietly(request: Request) -> Profiled:
    return profile(request, lambda progress: None)
