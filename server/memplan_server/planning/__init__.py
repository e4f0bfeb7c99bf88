"""Estimate, batch size, accumulation and placement: arithmetic over timelines.

Imports neither grpc nor torch.
"""

from memplan_server.planning.accumulation import plan_accumulation
from memplan_server.planning.batch_size import recommend_batch_sizes
from memplan_server.planning.confirmed import restricted, to_measure, with_evidence
from memplan_server.planning.estimate import estimate_memory
from memplan_server.planning.evidence import Evidence, Finding, described
from memplan_server.planning.goal import Goal, plan_job
from memplan_server.planning.learned import (
    NOTHING_LEARNED,
    Learned,
    residuals,
    with_learned_context,
)
from memplan_server.planning.placement import place
from memplan_server.planning.targets import Target, Timelines
from memplan_server.planning.uncertainty import CONFIDENCE, family, slack_bytes

__all__ = [
    "CONFIDENCE",
    "NOTHING_LEARNED",
    "Evidence",
    "Finding",
    "Goal",
    "Learned",
    "Target",
    "Timelines",
    "described",
    "estimate_memory",
    "family",
    "place",
    "plan_accumulation",
    "plan_job",
    "recommend_batch_sizes",
    "residuals",
    "restricted",
    "slack_bytes",
    "to_measure",
    "with_evidence",
    "with_learned_context",
]
