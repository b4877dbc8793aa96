"""Retries: what may be retried, and after how long."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
"""HTTP statuses that ask to retry later."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter, so that many callers do not retry at once."""

    first_seconds: float
    most_seconds: float
    factor: float = 2.0
    jitter: float = 0.3
    """Jitter, as a share of the wait."""

    def seconds(self, tries: int) -> float:
        """Seconds to wait after this try, counted from 1."""
        # Beyond so many tries a float could not hold the power, and every wait is the longest.
        whole = min(self.most_seconds, self.first_seconds * self.factor ** min(tries - 1, 100))
        return whole * random.uniform(1.0 - self.jitter, 1.0 + self.jitter)

    def __iter__(self) -> Iterator[float]:
        """All waits, endlessly."""
        return map(self.seconds, count(1))


def retry_after_seconds(value: str | None) -> float | None:
    """The wait that a Retry-After header asks for, given in seconds or as a date; None if it says nothing usable."""
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
