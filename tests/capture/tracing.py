"""From a job to the peaks of its timeline, as the server has them."""

from __future__ import annotations

from memplan.types import EstimateMemoryRequest, TrainingJob
from memplan.wire import from_proto, to_proto
from memplan_server.allocator import replay
from memplan_server.jobs import normalize
from memplan_server.simulate import worker
from memplan_server.timeline import Timeline
from memplan_server.validation import check

AMPERE = (8, 0)


def traced(job: TrainingJob) -> Timeline:
    """The timeline of a job that was sent and checked."""
    message = to_proto(EstimateMemoryRequest(job=job))
    sent = from_proto(type(message).FromString(message.SerializeToString()))
    assert sent.job == job
    check(sent)
    return Timeline.from_bytes(worker.trace(normalize(job), AMPERE))


def peaks(timeline: Timeline, batch_size: int) -> int:
    """Peak allocated bytes."""
    result = replay(timeline.events.tolist(), timeline.sizes(batch_size))
    return result.peak_allocated_bytes
