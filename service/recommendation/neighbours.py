"""The recommended trial's neighbours on the front: the next better one in each objective, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from layers.metrics import Goal
from service.common import formatting
from service.recommendation.choice import Candidate
from service.recommendation.metric_differences import in_words, metric_differences
from service.recommendation.schemas import Neighbour
from service.results.schemas import LeaderboardRow


def neighbours(
    chosen: Candidate,
    front: Sequence[Candidate],
    goals: Mapping[str, Goal],
    row: Callable[[Candidate], LeaderboardRow],
) -> list[Neighbour]:
    """For each objective, the trial of the front that betters the chosen one in it by least."""
    found: list[Neighbour] = []
    for metric, goal in goals.items():
        sign = 1 if goal == "minimize" else -1
        better = [each for each in front if sign * each.value(metric) < sign * chosen.value(metric)]
        if not better:
            continue
        nearest = min(better, key=lambda each: (sign * (chosen.value(metric) - each.value(metric)), each.number))
        traded = metric_differences(nearest, chosen, [*goals, "parameter_count"], goals)
        says = f"trial {nearest.number} is the next better in {formatting.label(metric)}: {in_words(traded)}"
        found.append(Neighbour(trial=row(nearest), better_in=metric, trades=traded, says=says))
    return found
