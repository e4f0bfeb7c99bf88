"""Types to protobuf messages and back, and to plain data and back.

    message = to_proto(PlanJobRequest(job=job))     # -> memplan.v1.planner_pb2.PlanJobRequest
    request = from_proto(message)                   # -> memplan.types.PlanJobRequest
    data = to_dict(job)                             # -> {"model": {...}, "precision": "fp32", ...}
    job = from_dict(TrainingJob, data)

The codec is generic: it goes by field names over descriptors. How values are represented:

- an absent submessage is its default instance, or `None` where the type says `| None`;
- an absent `optional` scalar and an unset member of a oneof are `None`;
- enums go by member name, `Struct` is a mapping in which whole numbers up to 2^53 are `int`,
  `Duration` is a `timedelta` and `Timestamp` a `datetime` of UTC (whole microseconds).

Values that are wrong but can be represented (NaN, negative sizes) pass: judging them is
validation's business. All that cannot be represented is reported at once, as
`WireError.violations`: wrong types, integers that do not fit their field, several members of a
oneof; from the wire, enum numbers that this version does not know, durations and times out of
range. Field paths start at the value given: `job.model.layer_stack.layers[3].linear`,
`library_versions['torch']`.
"""

from __future__ import annotations

from memplan._decode import from_proto
from memplan._encode import to_proto
from memplan._schema import WireError
from memplan.plain import from_dict, to_dict

__all__ = ["WireError", "from_dict", "from_proto", "to_dict", "to_proto"]
