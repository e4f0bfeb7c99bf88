"""Exit codes of the `memplan` command, and the code for each answer and error."""

from __future__ import annotations

from collections.abc import Iterable

from memplan.errors import (
    CaptureError,
    InvalidRequestError,
    MemplanError,
    UnavailableError,
    UnknownNameError,
)
from memplan.types import BatchSizeRecommendation, Placement, Verdict

__all__ = [
    "BAD_REQUEST",
    "DOES_NOT_FIT",
    "FAILURE",
    "FITS",
    "HELP",
    "INTERRUPTED",
    "UNCERTAIN",
    "UNREACHABLE",
    "for_batch_sizes",
    "for_error",
    "for_placements",
]

FITS = 0
FAILURE = 1
BAD_REQUEST = 2
DOES_NOT_FIT = 3
UNREACHABLE = 4
UNCERTAIN = 5
INTERRUPTED = 130

HELP = """\b
Exit codes:
  0    it fits on at least one GPU asked about; or there is an answer that needs no fitting
  1    something else went wrong: no answer in time, too many calls, a defect
  2    the request is wrong: usage, a job file, an unknown model or GPU
  3    it fits on none of the GPUs asked about; measured, it ran out of memory
  4    the server cannot be reached, or there is none to start
  5    it is certain for none of the GPUs, and uncertain for at least one
  130  interrupted"""


def for_placements(placements: Iterable[Placement]) -> int:
    """The best of the verdicts counts; one that is not known is no better than none."""
    verdicts = {placement.verdict for placement in placements}
    if Verdict.FITS in verdicts:
        return FITS
    return UNCERTAIN if Verdict.UNCERTAIN in verdicts else DOES_NOT_FIT


def for_batch_sizes(batch_sizes: Iterable[BatchSizeRecommendation]) -> int:
    """Whether at least one sample fits on at least one GPU."""
    return FITS if any(b.max_batch_size > 0 for b in batch_sizes) else DOES_NOT_FIT


def for_error(error: MemplanError) -> int:
    """The code for a call that failed."""
    if isinstance(error, InvalidRequestError | UnknownNameError | CaptureError):
        return BAD_REQUEST
    return UNREACHABLE if isinstance(error, UnavailableError) else FAILURE
