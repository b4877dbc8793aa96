"""Reports of attempts: stored, and at a rung answered by the pruner."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.leases import holders
from service.leases.attempts import AttemptKey
from service.leases.holders import Instruction
from service.leases.schemas import LeaseReport
from service.pruning import decisions, promoted


def report(
    session: Session, key: AttemptKey, body: LeaseReport, lease_seconds: float, *, keeps_artifacts: bool
) -> Instruction:
    """`holders.report`, which renews the lease; "prune" if the losses show that the training is not worth its time.

    `keeps_artifacts`: the service stores files, so that the state of a pruned training may be kept.
    """
    instruction = holders.report(session, key.trial, key.number, body, lease_seconds)
    if instruction.action != "continue" or not body.losses:
        return instruction
    reached = max(point.step for point in body.losses)
    reason = decisions.decide(session, key.trial, key.number, reached)
    if reason is None:
        return instruction
    keeps_state = promoted.is_state_wanted(session, key.trial, keeps_artifacts)
    return Instruction("prune", reason, keep_training_state=keeps_state)
