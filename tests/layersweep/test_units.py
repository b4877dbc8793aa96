"""Numbers and units as people read them: the same in a terminal, on a page and in a picture."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import pytest

from layers.metrics import METRICS
from layersweep.display import units
from service.web.rendering import static_files

SECONDS = (-1, 0, 0.0002, 0.24, 0.9996, 0.99949, 3.21, 9.97, 59.2, 59.7, 119.6, 250, 3599.7, 3600, 7260, 7500, 90_000)
SIZES = (0, 512, 1023, 1023.9, 1536, 9_856_000, 1023.9996 * 2**20, 1_072_693_248, 999.7 * 2**20, 3 * 2**40)
COUNTS = (0, 3, 950, 999.4, 999.6, 116_549, 999_499, 999_999, 1_234_567, 4_610_000, 2.5e13, 1e16)
SHARES = (0, 1e-6, 0.0004, 0.004, 0.05, 0.123, 0.5, 0.95, 0.987, 0.996, 0.99996, 1, -0.2, 1.5)
NUMBERS = (
    0,
    -0.0,
    12,
    2.12,
    0.15,
    0.000355,
    123456.7,
    1e-7,
    -2.5e9,
    99999.96,
    0.99996,
    999.96,
    10_001.0,
    12_345.67,
    0.14412,
)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_s_name_tells_its_declared_unit(name: str) -> None:
    assert units.unit(name) == METRICS[name].unit


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("latency_ms_p50", 0.14412, "0.1441 ms"),
        ("latency_ms_p99", 12.346, "12.35 ms"),
        ("latency_ms_p99", 0.99964, "0.9996 ms"),
        ("latency_ms_p99", 999.96, "1000 ms"),
        ("memory_bytes", 512, "512 B"),
        ("memory_bytes", 9_856_000, "9.4 MiB"),
        ("memory_bytes", 1.5 * 2**20, "1.5 MiB"),
        ("memory_bytes", 1023 * 2**20, "1023 MiB"),
        ("memory_bytes", 1023.9 * 2**10, "1 MiB"),
        ("memory_bytes", 1023.9, "1 KiB"),
        ("memory_bytes", 3 * 2**40, "3072 GiB"),
        ("parameter_count", 4_610_000, "4.61 M"),
        ("parameter_count", 999_999, "1 M"),
        ("parameter_count", 950, "950"),
        ("throughput_per_s", 116_549, "117 k/s"),
        ("throughput_per_s", 999.6, "1 k/s"),
        ("validation_loss", 1.73456, "1.735 nats"),
        ("precision_gap", 3.25e-05, "3.25e-5 nats"),
        ("generalization_gap", -0.0, "0 nats"),
        ("precision_gap", -5.85e-09, "≈ 0 nats"),
        ("accuracy", 0.987, "98.70%"),
        ("accuracy", 0.99996, "99.996%"),
        ("accuracy", 0.0, "0.00%"),
        ("accuracy", 1.0, "100.00%"),
        ("train_seconds", 59.7, "1 min"),
        ("train_seconds", 0.9996, "1 s"),
        ("validation_loss", None, "–"),
        ("latency_cv", -0.0, "0%"),
    ],
)
def test_metrics_are_shown_in_units_that_people_read(name: str, value: float | None, shown: str) -> None:
    assert units.metric(name, value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
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
def test_numbers_keep_four_digits(value: float, shown: str) -> None:
    assert units.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.0002, "< 1 ms"),
        (0.24, "240 ms"),
        (3.21, "3.2 s"),
        (59.2, "59 s"),
        (250, "4 min 10 s"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
        (3600, "1 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert units.duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0%"), (0.004, "0.4%"), (0.0004, "0.04%"), (0.05, "5.0%"), (0.95, "95%"), (0.996, "99.6%"), (1, "100%")],
)
def test_no_share_is_rounded_to_nothing_or_to_all(value: float, shown: str) -> None:
    assert units.share(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "true"),
        (3, "3"),
        ("silu", "silu"),
        (0.25, "0.25"),
        (0.000355, "0.000355"),
        (0.000012344, "1.234e-5"),
        (10000.0, "10000"),
        (10001.0, "10001"),
        (f"checkpoint:mine@{'0123456789ab' * 5}0123", "checkpoint:mine@0123456789ab…"),
    ],
)
def test_values_of_parameters_are_as_documents_write_them(value: object, shown: str) -> None:
    assert units.value(value) == shown


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_pictures_write_what_tables_write() -> None:
    cases = {"number": NUMBERS, "count": COUNTS, "bytes": SIZES, "duration": SECONDS, "share": SHARES}
    source = base64.b64encode(static_files()["pictures.js"].content).decode()
    program = f"""
        globalThis.matchMedia = () => ({{}});
        const pictures = await import("data:text/javascript;base64,{source}");
        const said = Object.entries({json.dumps(cases)}).map(
            ([name, values]) => [name, values.map((value) => pictures[name](value))]);
        console.log(JSON.stringify(Object.fromEntries(said)));
    """
    ran = subprocess.run(
        ["node", "--input-type=module"], input=program, capture_output=True, text=True, check=True, timeout=60
    )
    functions = {"bytes": units.bytes_} | {name: getattr(units, name) for name in cases if name != "bytes"}
    assert json.loads(ran.stdout) == {name: [functions[name](value) for value in cases[name]] for name in cases}


def test_one_is_no_plural() -> None:
    assert [units.plural(number, "trial") for number in (0, 1, 2, 1000)] == [
        "0 trials",
        "1 trial",
        "2 trials",
        "1,000 trials",
    ]


def test_a_metric_at_a_shape_has_the_unit_of_the_metric() -> None:
    assert units.metric("latency_ms_p50@chat", 0.5) == units.metric("latency_ms_p50", 0.5)
    assert units.metric("memory_bytes@bulk", 2**20) == "1 MiB"
    assert units.metric("flops@bulk", 2e9) == "2 G"
    assert units.heading("throughput_per_s@bulk") == "seq./s @bulk"
    assert units.heading("decode_ms_per_token_p50") == "decode per token p50", "its values have the unit"
