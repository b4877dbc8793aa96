"""Numbers, units and times as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from layers.metrics import METRICS

NOTHING = "–"

LABELS = {
    "parameter_count": "parameters",
    "flops": "FLOPs",
    "latency_ms_p50": "latency p50",
    "latency_ms_p90": "latency p90",
    "latency_ms_p99": "latency p99",
    "latency_ms_mean": "latency mean",
    "latency_cv": "latency CV",
    "latency_ms_enqueue_p50": "enqueue p50",
    "latency_ms_enqueue_p99": "enqueue p99",
    "throughput_per_s": "throughput",
    "memory_bytes": "memory",
    "device_memory_bytes": "device memory",
    "engine_bytes": "engine size",
    "weights_bytes": "weights",
    "activation_bytes": "activations",
    "io_bytes": "inputs and outputs",
    "bits_per_byte": "bits per byte",
    "build_seconds": "build time",
    "train_seconds": "training time",
    "device_seconds": "device time",
    "latency_ms": "latency (ms)",
    "loss": "loss (nats)",
    "number": "trial number",
}

_COUNTED = ("parameter_count", "flops")
_TIMES = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def label(name: str) -> str:
    """A metric's name in words."""
    return LABELS.get(name, name.replace("_", " "))


def unit(name: str) -> str:
    """A metric's unit as it is declared; "" where it has none."""
    return METRICS[name].unit if name in METRICS else ""


def metric(name: str, value: float | None) -> str:
    """A metric's value with its unit."""
    if value is None:
        return NOTHING
    kind = unit(name)
    if kind == "B":
        return bytes_(value)
    if kind == "s":
        return duration(value)
    if name in _COUNTED:
        return count(value)
    if kind == "1/s":
        return f"{count(value)}/s"
    return f"{number(value)} {kind}" if kind else number(value)


def number(value: float) -> str:
    """Four significant digits, fewer where they would be zeros, without an exponent where it can be read without."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    magnitude = abs(value)
    if float(value).is_integer() and magnitude < 1e9:
        return f"{value:.0f}"
    if not 1e-4 <= magnitude < 1e6:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    text = f"{value:.{max(0, 3 - math.floor(math.log10(magnitude)))}f}"
    # A single zero stays: it keeps the decimal points of a column below one another.
    return text.rstrip("0").rstrip(".") if "." in text and text.endswith("00") else text


def bytes_(value: float) -> str:
    """Bytes in binary units."""
    for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= size:
            return f"{_three_digits(value / size)} {name}"
    return f"{value:.0f} B"


def count(value: float) -> str:
    """A large count: 4.61 M."""
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{_three_digits(value / size)} {name}"
    return _three_digits(value)


def duration(seconds: float) -> str:
    """How long something took: 240 ms, 3.2 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 0.001:
        return "0 s" if seconds <= 0 else "< 1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    for (size, name), (below, below_name) in zip(_TIMES, (*_TIMES[1:], (1.0, "s")), strict=True):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            part = int(rest // below)
            return f"{whole:.0f} {name} {part} {below_name}" if part else f"{whole:.0f} {name}"
    raise AssertionError("unreachable")


def progress_rate(per_second: float) -> str:
    """How often something happens: 3.2 a minute."""
    for size, name in ((1.0, "second"), (60.0, "minute"), (3600.0, "hour"), (86_400.0, "day")):
        if per_second * size >= 1:
            return f"{_three_digits(per_second * size)} a {name}"
    return f"one in {duration(1 / per_second)}"


def change(given: float, reference: float) -> str:
    """How much more or less than a reference, in per cent."""
    share_of = (given - reference) / abs(reference)
    digits = 0 if abs(share_of) >= 0.1 else 1 if abs(share_of) >= 0.001 else 2
    return f"{100 * share_of:+.{digits}f} %" if abs(share_of) < 100 else f"×{_three_digits(given / reference)}"


def ago(then: float, now: float) -> str:
    """How long ago, coarsely."""
    seconds = max(0.0, now - then)
    if seconds < 10:
        return "just now"
    if seconds < 60:
        return f"{seconds // 10 * 10:.0f} s ago"
    for size, name in _TIMES:
        if seconds >= size:
            return f"{seconds // size:.0f} {name} ago"
    raise AssertionError("unreachable")


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the second: what a `<time>` element holds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def when(seconds: float) -> str:
    """A time for reading."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %b %Y, %H:%M UTC")


def value(given: Any) -> str:
    """A parameter's value."""
    if given is None:
        return NOTHING
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, int):
        return f"{given}"
    if not isinstance(given, float):
        return str(given)
    text = number(given)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def bound(given: float) -> str:
    """A limit, in full: 65,536."""
    return f"{given:,.0f}" if float(given).is_integer() and abs(given) < 1e15 else number(given)


def share(given: float) -> str:
    """A fraction as per cent."""
    return f"{given:.1%}" if 0 < given < 0.1 else f"{given:.0%}"


def meaning(name: str) -> str:
    """What a metric is, in a sentence."""
    return METRICS[name].meaning if name in METRICS else ""


_ENDINGS = {
    "budget_exhausted": "every trial of the budget has ended",
    "space_exhausted": "every point of the space was tried",
    "wall_seconds": "its time was over",
}


def ending(reason: str, end_code: str | None) -> str:
    """Why a sweep is in its state: the end of its budget in words, and what it found nothing of."""
    words = _ENDINGS.get(reason, reason)
    return f"no trial is complete and feasible; {words}" if end_code == "none_feasible" else words


def _three_digits(value: float) -> str:
    """Three significant digits and every whole one: 999.6 is 1000, never 1e+03."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"
