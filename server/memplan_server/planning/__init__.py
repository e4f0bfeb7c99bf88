"""Estimate, batch size, accumulation and placement: arithmetic over timelines.

Imports neither grpc nor torch.
"""

from memplan_server.planning.accumulation import plan_accumulation
from memplan_server.planning.batch_size import recommend_batch_sizes
from memplan_server.planning.estimate import estimate_memory
from memplan_server.planning.placement import place
from memplan_server.planning.targets import Target, Timelines
from memplan_server.planning.uncertainty import CONFIDENCE

__all__ = [
    "CONFIDENCE",
    "Target",
    "Timelines",
    "estimate_memory",
    "place",
    "plan_accumulation",
    "recommend_batch_sizes",
]
