"""Why a sweep cannot be scheduled for now: a code for programs, a sentence for people. The log has the exception."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from service.sampler_process import SamplerProcessError, SamplerTimeoutError


@dataclass(frozen=True, slots=True)
class SchedulingError:
    """`sentence` begins in lower case and ends without a full stop: it is put after a colon."""

    code: str
    sentence: str


STEP_TIMEOUT = SchedulingError("step_timeout", "a step of its scheduler hangs and was left to itself")
SAMPLER_TIMEOUT = SchedulingError(
    "sampler_timeout", "its sampler took longer than LAYERSWEEP_SAMPLER_SECONDS over one suggestion and was stopped"
)
SAMPLER_FAILED = SchedulingError("sampler_failed", "its sampler failed")
DATABASE_FAILED = SchedulingError("database_failed", "the database refused what was to be written or did not answer")
INTERNAL = SchedulingError("internal_error", "the scheduler met an error of its own")


def of(error: Exception) -> SchedulingError:
    """What to say of an exception."""
    if isinstance(error, SamplerTimeoutError):
        return SAMPLER_TIMEOUT
    if isinstance(error, SamplerProcessError):
        return SAMPLER_FAILED
    return DATABASE_FAILED if isinstance(error, SQLAlchemyError) else INTERNAL
