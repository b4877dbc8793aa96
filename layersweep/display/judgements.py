"""How judged limits read: a sentence each."""

from __future__ import annotations

import re
from typing import Literal

from layersweep.display import units
from layersweep.records.assertions import Baseline, JudgedLimit, Judgement, Range

_COMPARISON = re.compile(r"[<>]=?")


def says(limit: JudgedLimit, measured: Baseline) -> str:
    """`latency_ms_p50 is 0.2034 ms, the median of 5 builds ...; the baseline is 0.1939 ms, ...; broken by 0.0056`."""
    return "; ".join([*(_value(name, measured) for name in limit["metrics"]), *_compared(limit), _judged(limit)])


def _value(name: str, measured: Baseline) -> str:
    found = measured["metrics"][name]
    low, high = (units.metric(name, end(found["builds"])) for end in (min, max))
    text = (
        f"{name} is {units.metric(name, found['value'])}, the median of {units.plural(len(found['builds']), 'build')}"
    )
    return text if low == high else f"{text} from {low} to {high}"


def _compared(limit: JudgedLimit) -> list[str]:
    if limit["baseline"] is None:
        return []
    text = f"the baseline is {units.metric(limit['metrics'][0], limit['baseline'])}"
    return [text + (f", so it changed by {_shares(limit['change'])}" if limit["change"] else "")]


def _shares(change: Range) -> str:
    return f"{change['estimate']:+.1%}" + ("" if _is_open(change) else f" ({_interval_of_shares(change)})")


def _interval_of_shares(change: Range) -> str:
    return f"{change['low'] or 0.0:+.1%} to {change['high'] or 0.0:+.1%}"


def _judged(limit: JudgedLimit) -> str:
    excess = limit["excess"]
    by = _amount(limit, excess["estimate"])
    if limit["verdict"] == "kept":
        return f"kept, with {by} left"
    if limit["verdict"] == "broken":
        low, high = excess["low"], excess["high"]
        between = "" if low is None or high is None else f" ({_amount(limit, low)} to {_amount(limit, high)})"
        return f"broken by {by}{between}"
    side = "broken" if excess["estimate"] > 0 else "kept"
    text = f"cannot be judged: {side}{f' by {by}' if excess['estimate'] else ''} as measured"
    if is_of_too_few(limit):
        return f"{text}, and too few builds for an interval"
    return f"{text}, and its interval reaches from {_on_its_side(limit, 'low')} to {_on_its_side(limit, 'high')}"


def is_of_too_few(limit: JudgedLimit) -> bool:
    """Whether a limit cannot be judged as there are too few builds, however well these agree."""
    excess = limit["excess"]
    return limit["verdict"] == "undecided" and excess["low" if excess["estimate"] > 0 else "high"] is None


def why_undecided(judgement: Judgement) -> str:
    """Why it cannot be said whether a limit is kept, and what to do about it."""
    undecided = [limit for limit in judgement["limits"] if limit["verdict"] == "undecided"]
    builds = units.plural(judgement["builds"], "build")
    if any(map(is_of_too_few, undecided)):
        return (
            f"a limit cannot be judged: {builds} are too few, however well they agree. Raise --builds and "
            "--most-builds; --strict fails here."
        )
    return (
        f"a limit cannot be judged: {builds} differ by more than they are away from it. Stop other load, or raise "
        "--most-builds; --strict fails here."
    )


def moved(judgement: Judgement) -> list[str]:
    """Of a baseline that was judged against itself: a sentence for each limit of which it could not tell that nothing
    has changed."""
    return [
        f"this baseline is too noisy for {limit['limit']}: against itself, {limit['metrics'][0]} moves by "
        f"{_interval_of_shares(limit['change'])}, so gates with it will often be unable to judge. Stop other load and "
        "write it again, or allow more"
        for limit in judgement["limits"]
        if limit["verdict"] == "undecided" and limit["change"] is not None and not _is_open(limit["change"])
    ]


def _is_open(found: Range) -> bool:
    return found["low"] is None or found["high"] is None


def _on_its_side(limit: JudgedLimit, end: Literal["low", "high"]) -> str:
    excess = limit["excess"][end]
    if excess is None:
        return "any value"
    return f"{_amount(limit, excess)} {'over' if excess > 0 else 'within'} it"


def _amount(limit: JudgedLimit, excess: float) -> str:
    """How much an excess is, without its sign: in the metric's unit if the limit compares the metric itself."""
    name = limit["metrics"][0]
    sides = [side.strip() for side in _COMPARISON.split(limit["limit"])]
    is_alone = len(limit["metrics"]) == 1 and any(side in (name, units.without_shape(name)) for side in sides)
    return units.metric(name, abs(excess)) if is_alone else units.number(abs(excess))
