"""Profiles to rows and back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from google.protobuf.message import DecodeError

from memplan.types import MeasuredProfile
from memplan.v1 import planner_pb2
from memplan.wire import WireError, from_proto, to_proto
from memplan_server.errors import StoreFailure

__all__ = ["decoded", "identified", "row"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def identified(profile: MeasuredProfile) -> MeasuredProfile:
    """With what every stored profile has: an id and a time."""
    return replace(
        profile,
        profile_id=profile.profile_id or uuid4().hex[:16],
        create_time=profile.create_time or datetime.now(UTC),
    )


def row(profile: MeasuredProfile) -> dict[str, Any]:
    """The row of a profile that is identified, by column."""
    assert profile.create_time is not None
    return {
        "profile_id": profile.profile_id,
        "job_digest": profile.job_digest,
        "gpu_type": profile.gpu_type,
        "device_type": profile.device_type.value,
        "micro_batch_size": profile.micro_batch_size,
        "out_of_memory": profile.out_of_memory,
        "create_time": (profile.create_time - _EPOCH) // timedelta(microseconds=1),
        "host": profile.host,
        "data": _serialised(replace(profile, curve=())),
        "curve": _serialised(MeasuredProfile(curve=profile.curve)),
    }


def decoded(data: bytes, curve: bytes = b"") -> MeasuredProfile:
    """The profile of a row. Raises StoreFailure for one that a later version stored."""
    message = planner_pb2.MeasuredProfile()
    try:
        message.ParseFromString(data)
        message.MergeFromString(curve)
        profile: MeasuredProfile = from_proto(message)
    except (DecodeError, WireError) as error:
        raise StoreFailure(f"This version cannot read a profile that is stored: {error}") from None
    return profile


def _serialised(profile: MeasuredProfile) -> bytes:
    return to_proto(profile).SerializeToString(deterministic=True)
