from __future__ import annotations

import pytest

from service.common import formatting


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (3, "just now"), (45, "40 s ago"), (150, "2 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_ages(seconds, text):
    assert formatting.ago(1000, 1000 + seconds) == text


def test_times_and_bounds():
    assert formatting.timestamp(0) == "1970-01-01T00:00:00Z"
    assert formatting.when(0) == "1 Jan 1970, 00:00 UTC"
    assert formatting.bound(65_536) == "65,536"


def test_no_rate_or_ratio_has_an_exponent():
    assert formatting.progress_rate(1500) == "1500 a second"
    assert formatting.change(1234.0, 1.0) == "×1234"
    assert formatting.change(1.125, 1.0) == "+12%"
    assert formatting.change(-0.05, -0.6) == "+0.55", "a loss below its reference is no share of it"
    assert formatting.change(-0.25, 0.25) == "-0.5"


def test_what_a_sweep_starts_from_is_counted():
    assert formatting.starts_from(1, 1) == "starts from 1 trial of 1 earlier sweep"
    assert formatting.starts_from(0, 0) == "found no earlier trials to start from"
