"""What one trial gives and takes against another: differences of metrics, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from layers.metrics import Goal
from service.common import formatting
from service.recommendation.choice import Candidate, goal_of
from service.recommendation.noise import LEAST_SHARE
from service.recommendation.schemas import Trade


def metric_differences(
    other: Candidate, chosen: Candidate, metrics: Iterable[str], goals: Mapping[str, Goal]
) -> list[Trade]:
    """The differences of `other` from `chosen` in each metric that both have."""
    found: list[Trade] = []
    for metric in dict.fromkeys(metrics):
        value, base = other.value(metric), chosen.value(metric)
        if not math.isfinite(value) or not math.isfinite(base):
            continue
        share = (value - base) / abs(base) if base else None
        found.append(
            Trade(metric=metric, goal=goal_of(metric, goals), value=value, difference=value - base, share=share)
        )
    return found


def in_words(found: Iterable[Trade]) -> str:
    """For a reader: "latency p50 0.144 ms (-18 %), validation loss 1.95 (+1.9 %)"."""
    parts: list[str] = []
    for trade in found:
        text = f"{formatting.label(trade.metric)} {formatting.metric(trade.metric, trade.value)}"
        if trade.difference == 0:
            text += " (the same)"
        elif trade.share is not None and abs(trade.share) < LEAST_SHARE:
            text += f" ({'more' if trade.share > 0 else 'less'} by under {LEAST_SHARE:.1%})"
        elif trade.share is not None:
            text += f" ({trade.share:+.1%})"
        parts.append(text)
    return ", ".join(parts) or "nothing that both have measured"
