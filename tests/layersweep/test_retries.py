"""Waits between tries, and what a service says of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import islice

import pytest

from layersweep.retries import Backoff, retry_after_seconds


@pytest.mark.parametrize(("factor", "jitter"), [(2.0, 0.3), (3.0, 0.2)])
def test_waits_grow_with_jitter_up_to_a_limit(factor: float, jitter: float) -> None:
    backoff = Backoff(first_seconds=0.5, most_seconds=10.0, factor=factor, jitter=jitter)
    for tries, seconds in enumerate(islice(backoff, 2000), 1):
        whole = min(10.0, 0.5 * factor ** min(tries - 1, 20))
        assert whole * (1 - jitter) <= seconds <= whole * (1 + jitter)
    assert len({backoff.seconds(3) for _ in range(20)}) > 1, "not all at the same time"


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    assert retry_after_seconds("12") == 12
    moment = datetime.now(UTC) + timedelta(seconds=60)
    assert 50 < (retry_after_seconds(format_datetime(moment, usegmt=True)) or 0) <= 60
    assert retry_after_seconds("soon") is None
    assert retry_after_seconds(None) is None
