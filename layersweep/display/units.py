"""Numbers and units as people read them, on pages as in a terminal. `--json`, `--csv` and the API have exact values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise

ABSENT = "–"

BYTES = ((1.0, "B"), (2.0**10, "KiB"), (2.0**20, "MiB"), (2.0**30, "GiB"))
COUNTS = ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"))
TIMES = ((1.0, "s"), (60.0, "min"), (3600.0, "h"), (86_400.0, "d"))
SHARES = ((0.01, "%"),)
PLAIN = ((1.0, ""),)

ROUNDING_NATS = 1e-6
"""What float32 leaves of a loss of some nats: a gap below it is none."""

_HASH = re.compile(r"(@[0-9a-f]{12})[0-9a-f]{52}$")
"""Of what a parameter names, as checkpoint:NAME@HASH: its first digits tell it from others."""

_COUNTED = ("parameter_count", "flops")
_SUFFIXES = {"_bytes": "B", "_seconds": "s", "_per_s": "1/s", "loss": "nats", "loss_stderr": "nats", "_gap": "nats"}
_HEADINGS = {
    "memory_bytes": "memory",
    "device_ms_per_token": "device ms a token",
    "validation_loss": "val. loss",
    "parameter_count": "params",
    "throughput_per_s": "seq./s",
    "tokens_per_s": "tokens/s",
}


def sentence(clause: str) -> str:
    """A clause of an answer as a sentence of its own."""
    return f"{clause[:1].upper()}{clause[1:]}."


def without_shape(name: str) -> str:
    """A metric's name without the shape that it was measured at: latency_ms_p50@chat is latency_ms_p50."""
    return name.partition("@")[0]


def unit(name: str) -> str:
    """The unit that a metric's name tells; "" if it has none."""
    name = without_shape(name)
    if "_ms" in name:
        return "ms"
    if name == "bits_per_byte":
        return "bit"
    return next((known for suffix, known in _SUFFIXES.items() if name.endswith(suffix)), "")


def scale(name: str) -> tuple[tuple[float, str], ...]:
    """The units in which a metric is drawn, from the smallest: how much of the metric's own each is, and its name."""
    if without_shape(name) in _COUNTED:
        return COUNTS
    if without_shape(name) in ("accuracy", "latency_cv"):
        return SHARES
    own = unit(name)
    return {"B": BYTES, "s": TIMES}.get(own, ((1.0, own),))


def metric(name: str, value: float | None) -> str:
    """A metric's value with its unit: ("latency_ms_p50", 0.14412) is "0.1441 ms"."""
    if value is None:
        return ABSENT
    own = unit(name)
    if without_shape(name).endswith("_gap") and 0 < abs(value) < ROUNDING_NATS:
        return f"≈ 0 {own}"
    if own == "B":
        return bytes_(value)
    if own == "s":
        return duration(value)
    if own == "1/s":
        return f"{count(value)}/s"
    if without_shape(name) in _COUNTED:
        return count(value)
    if name == "accuracy":
        return share(value, decimals=2)
    if without_shape(name) == "latency_cv":
        return share(abs(value))
    return f"{number(value)} {own}" if own else number(value)


def figure(name: str, metrics: Mapping[str, float]) -> str:
    """A trial's metric; a loss that is a mean over trainings with its standard error and their number."""
    shown = metric(name, metrics.get(name))
    error, trainings = metrics.get("validation_loss_stderr"), metrics.get("trainings")
    if name != "validation_loss" or error is None or trainings is None:
        return shown
    return f"{shown} ± {number(float(f'{error:.2g}'))} (n = {trainings:.0f})"


def number(value: float) -> str:
    """Four significant digits, fewer if they would be zeros, without an exponent if it can be read without."""
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
    rounded = float(f"{magnitude:.3e}")
    text = f"{value:.{max(0, 3 - math.floor(math.log10(rounded)))}f}"
    # A single zero stays: it keeps the decimal points of a column below one another.
    return text.rstrip("0").rstrip(".") if "." in text and text.endswith("00") else text


def bound(given: float) -> str:
    """A limit, in full: 65,536."""
    return f"{given:,.0f}" if float(given).is_integer() and abs(given) < 1e16 else number(given)


def bytes_(value: float) -> str:
    """Bytes in binary units."""
    return f"{value:.0f} B" if abs(value) < 1023.5 else _scaled(value, BYTES)


def count(value: float) -> str:
    """A large count: 4.61 M."""
    return _scaled(value, COUNTS)


def plural(number: int, noun: str) -> str:
    """How many there are of a noun: 1 trial, 2 trials, 1,000 trials."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """How long something took: 240 ms, 3.2 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 0.001:
        return "0 s" if seconds <= 0 else "< 1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    (below, below_name), (size, name) = next(pair for pair in reversed([*pairwise(TIMES)]) if whole >= pair[1][0])
    first, rest = divmod(whole, int(size))
    second = rest // int(below)
    return f"{first} {name} {second} {below_name}" if second else f"{first} {name}"


def share(value: float, decimals: int | None = None) -> str:
    """A fraction as per cent, with as many decimals as keep it apart from nothing and from all: 99.996%."""
    digits = decimals if decimals is not None else 1 if 0 < value < 0.1 else 0
    rest = min(value, 1 - value)
    if 0 < rest < 0.01:
        digits = max(digits, min(6, math.ceil(-math.log10(100 * rest))))
    return f"{value:.{digits}%}"


def ago(then: float, now: float) -> str:
    """How long ago, coarsely. Both in seconds."""
    seconds = max(0.0, now - then)
    if seconds < 10:
        return "just now"
    if seconds < 60:
        return f"{seconds // 10 * 10:.0f} s ago"
    size, name = next((size, name) for size, name in reversed(TIMES) if seconds >= size)
    return f"{seconds // size:.0f} {name} ago"


def since(time: str, now: float) -> str:
    """The same of a time of the API, in RFC 3339; what is no time stays as it is."""
    try:
        return ago(datetime.fromisoformat(time).timestamp(), now)
    except ValueError:
        return time


def at_once(parallel: int | str, effective: int | None, *, ended: bool = False) -> str:
    """How many trials of a sweep may run at once: `4`, or `auto (8 now)`."""
    if parallel != "auto" or effective is None or ended:
        return str(parallel)
    return f"auto ({effective} now)"


def value(given: object) -> str:
    """A parameter's value: as a document writes it, numbers to four digits."""
    if given is None:
        return ABSENT
    if isinstance(given, bool):
        return "true" if given else "false"
    if not isinstance(given, float):
        return _HASH.sub(r"\1…", str(given))
    text = number(given)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def heading(name: str) -> str:
    """A metric's name as the head of a column."""
    base, at, shape = name.partition("@")
    if at:
        return f"{heading(base)} @{shape}"
    if name in _HEADINGS:
        return _HEADINGS[name]
    return name.replace("_ms", "").removesuffix("_bytes").removesuffix("_seconds").replace("_", " ")


def three_digits(value: float) -> str:
    """Three significant digits and every whole one: 999.6 is 1000, never 1e+03."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def _scaled(value: float, steps: Sequence[tuple[float, str]]) -> str:
    """A value in the largest of the units that it reaches as it is written: 1023.9 KiB is 1 MiB."""
    for (size, name), (larger, _) in pairwise(steps):
        text = three_digits(value / size)
        if abs(float(text)) * size < larger:
            return f"{text} {name}".rstrip()
    size, name = steps[-1]
    return f"{three_digits(value / size)} {name}"
