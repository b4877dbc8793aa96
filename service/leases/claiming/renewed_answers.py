"""What still holds of an answer with leases when its request is sent again with the same Idempotency-Key."""

from __future__ import annotations

from sqlalchemy.orm import Session

from layersweep.json_values import JsonObject
from service.leases import holders


def of_claim(session: Session, answer: JsonObject) -> JsonObject | None:
    """The answer to a claim with those leases that the worker still holds; None if it holds none of them."""
    if "leases" not in answer:
        return answer if _is_held(session, answer) else None
    held = [lease for lease in answer["leases"] if _is_held(session, lease)]
    return {"leases": held} if held else None


def of_finish(session: Session, answer: JsonObject) -> JsonObject:
    """The answer to a finish, with the lease that it gave while that is held."""
    lease = answer.get("lease")
    return answer | {"lease": lease if lease is not None and _is_held(session, lease) else None}


def _is_held(session: Session, lease: JsonObject) -> bool:
    return holders.is_held(session, lease["trial"], lease["attempt"])
