"""Why a sweep cannot be scheduled for now: a code for programs, a sentence for people. The log has the exception."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.common.states import SweepState
from service.database.json_columns import SweepTroubled
from service.database.models import Sweep
from service.events import events
from service.scheduling.sampler_process import SamplerProcessError, SamplerTimeoutError

REASON_PREFIX = "scheduling failed"
"""How the reason of a sweep begins that cannot be scheduled for now."""


@dataclass(frozen=True, slots=True)
class Cause:
    """`sentence` begins in lower case and ends without a full stop: it is put after a colon."""

    code: str
    sentence: str


STEP_TIMEOUT = Cause("step_timeout", "a step of its scheduler hangs and was left to itself")
SAMPLER_TIMEOUT = Cause(
    "sampler_timeout", "its sampler took longer than LAYERSWEEP_SAMPLER_SECONDS over one suggestion and was stopped"
)
SAMPLER_FAILED = Cause("sampler_failed", "its sampler failed")
DATABASE_FAILED = Cause("database_failed", "the database refused what was to be written or did not answer")
INTERNAL = Cause("internal_error", "the scheduler met an error of its own")


@dataclass(frozen=True, slots=True)
class SchedulingError:
    """What keeps a sweep from going on for now, as its row and its event say it."""

    reason: str
    code: str


def cause_of(error: Exception) -> Cause:
    """What to say of an exception."""
    if isinstance(error, SamplerTimeoutError):
        return SAMPLER_TIMEOUT
    if isinstance(error, SamplerProcessError):
        return SAMPLER_FAILED
    return DATABASE_FAILED if isinstance(error, SQLAlchemyError) else INTERNAL


def scheduling_error(cause: Cause, failures: int) -> SchedulingError:
    """What is said of a sweep whose step failed so often in a row."""
    times = "once" if failures == 1 else f"{failures} times in a row"
    sentence = f"{REASON_PREFIX} {times} and is tried again ({cause.code}): {cause.sentence}"
    return SchedulingError(f"{sentence}; the service's log says more", cause.code)


def store(session: Session, sweep_id: str, error: SchedulingError | None) -> None:
    """Say why an active sweep does not go on; None: it does again."""
    reason = None if error is None else error.reason
    changes = Sweep.reason.startswith(REASON_PREFIX) if error is None else Sweep.reason.is_distinct_from(reason)
    stored = session.scalar(
        sa.update(Sweep)
        .where(Sweep.id == sweep_id, Sweep.state == SweepState.ACTIVE, changes)
        .values(reason=reason)
        .returning(Sweep.id)
        .execution_options(synchronize_session=False)
    )
    if stored is not None:
        data: SweepTroubled = {"reason": reason, "code": None if error is None else error.code}
        events.append(session, sweep_id, "sweep.trouble", data=data)
