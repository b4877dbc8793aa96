"""How judged limits read: a sentence each."""

from __future__ import annotations

from layersweep.display import units
from layersweep.records.assertions import Baseline, JudgedLimit, Range


def says(limit: JudgedLimit, measured: Baseline) -> str:
    """`latency_ms_p50 is 0.2034 ms, the median of 5 builds ...; the baseline is 0.1939 ms, ...; broken by 0.0056`."""
    return "; ".join([*(_value(name, measured) for name in limit["metrics"]), *_compared(limit), _judged(limit)])


def _value(name: str, measured: Baseline) -> str:
    found = measured["metrics"][name]
    low, high = (units.metric(name, end(found["builds"])) for end in (min, max))
    said = (
        f"{name} is {units.metric(name, found['value'])}, the median of {units.plural(len(found['builds']), 'build')}"
    )
    return said if low == high else f"{said} from {low} to {high}"


def _compared(limit: JudgedLimit) -> list[str]:
    if limit["baseline"] is None:
        return []
    said = f"the baseline is {units.metric(limit['metrics'][0], limit['baseline'])}"
    return [said + (f", so it changed by {_shares(limit['change'])}" if limit["change"] else "")]


def _shares(change: Range) -> str:
    return f"{change['estimate']:+.1%}{_between(change, '+.1%')}"


def _between(found: Range, form: str) -> str:
    if found["low"] is None or found["high"] is None:
        return " (too few builds for an interval)"
    return f" ({found['low']:{form}} to {found['high']:{form}})"


def _judged(limit: JudgedLimit) -> str:
    excess = limit["excess"]
    if limit["verdict"] == "undecided":
        return f"cannot be judged: it is broken by {excess['estimate']:.3g}{_between(excess, '.3g')}"
    if limit["verdict"] == "kept":
        return f"kept, with {abs(excess['estimate']):.3g} left"
    return f"broken by {excess['estimate']:.3g}{_between(excess, '.3g')}"
