"""Trying again: what may be tried, and how long to wait before it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
"""HTTP's statuses that say "later"."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that grow from try to try, each longer or shorter by chance so that many callers do not come at once."""

    first_seconds: float
    most_seconds: float
    factor: float = 2.0
    jitter: float = 0.3
    """By which share of it chance makes a wait longer or shorter."""

    def seconds(self, tries: int) -> float:
        """How long to wait after the try with this number (from 1)."""
        # Beyond so many tries a float could not hold the power, and every wait is the longest.
        whole = min(self.most_seconds, self.first_seconds * self.factor ** min(tries - 1, 100))
        return whole * random.uniform(1.0 - self.jitter, 1.0 + self.jitter)

    def __iter__(self) -> Iterator[float]:
        """Every wait, without end."""
        return map(self.seconds, count(1))


def retry_after_seconds(value: str | None) -> float | None:
    """The wait that a Retry-After header asks for, given in seconds or as a date; None where it says nothing usable."""
    if not value:
        return None
    if value.isascii() and value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
