"""Numbers as people read them. The exact values are in `--json` and `--csv`."""

from __future__ import annotations

import math
from typing import Any

MICROSECONDS_PER_MILLISECOND = 1000
ABSENT = "–"

_HEADINGS = {
    "memory_bytes": "memory",
    "validation_loss": "val. loss",
    "parameter_count": "params",
    "throughput_per_s": "seq./s",
}


def metric(name: str, value: float | None) -> str:
    """A metric's value in the unit that its name tells, scaled: ("latency_ms_p50", 0.2143) is "214 µs"."""
    if value is None:
        return ABSENT
    if name.startswith("latency_ms"):
        return milliseconds(value)
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_seconds"):
        return seconds(value)
    if name in {"parameter_count", "flops"}:
        return count(value)
    if name == "accuracy":
        return f"{value:.1%}"
    if name.endswith("_loss") or name in {"bits_per_byte", "generalization_gap"}:
        # "z": a gap that rounds to zero has no sign.
        return f"{value:z.3f}"
    return number(value)


def number(value: float) -> str:
    """Four significant digits and every whole one: 10000 and 10001 stay apart, 0.00001234 is 1.234e-05."""
    if math.isfinite(value) and value.is_integer() and abs(value) < 1e15:
        return f"{value:z.0f}"
    return f"{value:.1f}" if 1e3 <= abs(value) < 1e15 else f"{value:.4g}"


def heading(name: str) -> str:
    """A metric's name as the head of a column."""
    if name in _HEADINGS:
        return _HEADINGS[name]
    return name.replace("latency_ms", "latency").removesuffix("_bytes").removesuffix("_seconds").replace("_", " ")


def milliseconds(value: float) -> str:
    if value < 1:
        return f"{_three_digits(value * MICROSECONDS_PER_MILLISECOND)} µs"
    if value < 1000:
        return f"{_three_digits(value)} ms"
    return seconds(value / 1000)


def seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(value: float) -> str:
    """Bytes in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} B" if unit == "B" else f"{_three_digits(value)} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes every size")


def count(value: float) -> str:
    """A number of things in powers of 1000."""
    for unit in ("", " k", " M", " G", " T"):
        if value < 1000 or unit == " T":
            return f"{value:.0f}" if unit == "" else f"{_three_digits(value)}{unit}"
        value /= 1000
    raise AssertionError("the last unit takes every count")


def scalar(value: Any) -> str:
    """A parameter's value: as a document writes it, numbers to four digits."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return number(value)
    return str(value)


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
