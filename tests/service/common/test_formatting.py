from __future__ import annotations

import pytest

from service.common import formatting


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency_ms_p50", 0.4321, "0.4321 ms"),
        ("validation_loss", 1.5, "1.5 nats"),
        ("memory_bytes", 9_856_000, "9.4 MiB"),
        ("memory_bytes", 1_072_693_248, "1023 MiB"),
        ("engine_bytes", 512, "512 B"),
        ("parameter_count", 4_610_000, "4.61 M"),
        ("throughput_per_s", 116_549, "117 k/s"),
        ("throughput_per_s", 999.6, "1000/s"),
        ("parameter_count", 999_999, "1000 k"),
        ("memory_bytes", 999.7 * 2**20, "1000 MiB"),
        ("accuracy", 0.5, "0.5"),
        ("precision_gap", 3.25e-05, "3.25e-5 nats"),
        ("train_seconds", 250, "4 min 10 s"),
        ("accuracy", None, "–"),
    ],
)
def test_metrics_have_their_unit(name, value, text):
    assert formatting.metric(name, value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12, "12"),
        (1.0, "1"),
        (2.12, "2.120"),
        (0.15, "0.15"),
        (0.000355, "0.0003550"),
        (123456.7, "123457"),
        (1e-7, "1e-7"),
        (-2.5e9, "-2.5e9"),
        (99999.96, "100000"),
    ],
)
def test_numbers_keep_four_digits(value, text):
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0002, "< 1 ms"),
        (0.24, "240 ms"),
        (3.21, "3.2 s"),
        (59.2, "59 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
        (3600, "1 h"),
    ],
)
def test_durations(seconds, text):
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (3, "just now"), (45, "40 s ago"), (150, "2 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_ages(seconds, text):
    assert formatting.ago(1000, 1000 + seconds) == text


def test_times_and_values():
    assert formatting.timestamp(0) == "1970-01-01T00:00:00Z"
    assert formatting.when(0) == "1 Jan 1970, 00:00 UTC"
    assert [formatting.value(each) for each in (None, True, 3, 0.000355, "silu")] == [
        "–",
        "true",
        "3",
        "0.000355",
        "silu",
    ]
    assert formatting.bound(65_536) == "65,536"
    assert formatting.share(0.004) == "0.4%"


def test_no_rate_or_ratio_has_an_exponent():
    assert formatting.progress_rate(1500) == "1500 a second"
    assert formatting.change(1234.0, 1.0) == "×1234"
