"""What validation finds of a sweep's space, in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from layersweep.display import units
from layersweep.records.sweeps import HardwarePrediction, SpaceFacts, TransformersShare, UnpredictedMetric


def print_space(console: Console, space: SpaceFacts) -> None:
    """Print how many points a space has, and how many of them keep the rules."""
    kept = f"{units.share(space['feasible_share'], 1)} keep the rules{_sampled_in_words(space)}"
    console.print(Text(f"Space: {_points_in_words(space)}; {kept}."))
    for rule, rejected in sorted(space["rejections"].items(), key=lambda pair: -pair[1]):
        console.print(Text(f"  {rejected:6.1%} rejected by: {rule}", style="dim"))


MOST_LOOKED_AT = 100
"""Points of a space with more are sampled where it is asked what can leave for transformers."""


def transformers_in_words(share: TransformersShare, space: SpaceFacts) -> str:
    """`As a checkpoint of transformers: 60% of 100 sampled points (Llama 40%, Qwen3 20%).`"""
    is_sampled = space["points"] is None or space["points"] > MOST_LOOKED_AT
    judged, leaving = share["judged"], sum(share["architectures"].values())
    if not judged:
        return "As a checkpoint of transformers: none of the points that were looked at keeps the rules."
    each = ", ".join(f"{name} {count / judged:.0%}" for name, count in share["architectures"].items())
    found = f"{leaving / judged:.0%} of {units.plural(judged, 'sampled point' if is_sampled else 'point')}" + (
        f" ({each})" if each else ""
    )
    return f"As a checkpoint of transformers: {found}." + (
        f" Not, for example: {share['misfit']}" if share["misfit"] else ""
    )


def _points_in_words(space: SpaceFacts) -> str:
    names = ", ".join(space["open_parameters"])
    if not names:
        return "one point, as nothing is open"
    if space["points"] is None:
        return f"continuous, or too large to count, over {names}"
    return f"{units.plural(space['points'], 'point')} over {names}"


def _sampled_in_words(space: SpaceFacts) -> str:
    """What a share rests on that comes from samples; older services do not say how many these were."""
    judged, interval = space.get("judged"), space.get("feasible_interval")
    if not space["sampled"]:
        return ""
    if judged is None or interval is None:
        return " (of a sample)"
    low, high = (units.share(bound, 1) for bound in interval)
    return f" (of {judged:,} samples: {low} to {high} with 95% confidence)"


def prediction_in_words(found: HardwarePrediction) -> str:
    """`Predicted latency_ms_p50: 0.1 ms to 0.9 ms, 0.3 ms at the median, from 40 trials on ...`"""
    metric = found["metric"]
    low, median, high = (units.metric(metric, value) for value in (found["low"], found["median"], found["high"]))
    between = median if low == high else f"{low} to {high}, {median} at the median"
    text = (
        f"Predicted {metric}: {between}, from {found['from_trials']} trials on "
        f"{found['target']} (off by {units.share(found['error_share'])} in the mean)"
    )
    if found["known_points"] < found["points"]:
        text += f"; {found['points'] - found['known_points']} of {found['points']} points are unlike what was measured"
    kept = (f"{limit['constraint']} leaves {units.share(limit['kept_share'])}" for limit in found["limits"])
    return "; ".join([text, *kept]) + "."


def unpredicted_in_words(found: Sequence[UnpredictedMetric]) -> list[str]:
    """`Not predicted: prefill_ms_p50, decode_ms_per_token_p50: a prediction takes 16 trials ...`, a line a reason."""
    names: dict[str, list[str]] = {}
    for each in found:
        names.setdefault(each["reason"], []).append(each["metric"])
    return [f"Not predicted: {', '.join(metrics)}: {reason}." for reason, metrics in names.items()]
