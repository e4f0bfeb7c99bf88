"""The rules of the contract, checked all at once.

    request, violations = read(PlanJobRequest, data)    # at the edge: from bytes
    check(request)                                      # InvalidJob with every violation

Every rule that the comments of the proto files state, and nothing that only the model itself can
tell. Each rule is a small generator of violations over the dataclasses of `memplan.types`.
"""

from memplan_server.validation.messages import read
from memplan_server.validation.requests import check, violations_of

__all__ = ["check", "read", "violations_of"]
