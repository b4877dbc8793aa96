"""How an attempt can end, and what it reports then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from workers.engine.protocol import JsonObject
from workers.service.messages import FigureNoise, FinishRequest

Outcome = Literal["complete", "infeasible", "pruned", "failed"]

REASON_CHARACTERS = 4000
LOG_CHARACTERS = 60_000


@dataclass(frozen=True, slots=True)
class Finish:
    """How a trial ended, and everything learnt about it. `log` is the tail of what a child printed."""

    outcome: Outcome
    reason: str | None
    metrics: Mapping[str, float]
    measurements: Mapping[str, JsonObject]
    noise: Mapping[str, FigureNoise] = field(default_factory=dict[str, FigureNoise])
    log: str = ""

    def body(self) -> FinishRequest:
        """The request that tells the service."""
        return {
            "outcome": self.outcome,
            "reason": self.reason[:REASON_CHARACTERS] if self.reason else None,
            "metrics": dict(self.metrics),
            "measurements": {name: dict(data) for name, data in self.measurements.items()},
            "noise": dict(self.noise),
            "log": self.log[-LOG_CHARACTERS:],
        }


class TrialEndedError(Exception):
    """The trial ends here; another attempt would end the same way.

    TrialEndedError
    └── OutOfMemoryError   ... if it had the device to itself
    """

    def __init__(self, outcome: Outcome, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.outcome: Outcome = outcome
        self.reason = reason
        self.log = log


class OutOfMemoryError(TrialEndedError):
    """The device, or the machine, had too little memory."""
