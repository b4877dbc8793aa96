"""The recommended trial's neighbours on the front: the next better one in each objective, and what it costs; and the
best one under a limit that already says how good the other objectives have to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from layers.expressions.constraints import parse_constraint
from layers.metrics import Goal
from service.common import formatting
from service.recommendation.choice import Candidate, Choice
from service.recommendation.metric_differences import in_words, metric_differences
from service.recommendation.schemas import Neighbour
from service.recommendation.uncertainty import Noise
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


def best_under_limits(
    chosen: Candidate,
    choice: Choice,
    goals: Mapping[str, Goal],
    constraints: Sequence[str],
    noise: Noise,
    row: Callable[[Candidate], LeaderboardRow],
) -> Neighbour | None:
    """The trial of the front that is best in the one objective that no constraint limits.

    None if no objective has a limit, if several have none, and if that trial is not better than the chosen one
    by more than noise.
    """
    limited = {name: text for text in constraints for name in parse_constraint(text).metrics if name in goals}
    free = [name for name in goals if name not in limited]
    if not limited or len(free) != 1:
        return None
    metric = free[0]
    sign = 1 if goals[metric] == "minimize" else -1
    best = min(choice.kept, key=lambda each: (sign * each.value(metric), each.number))
    gained = sign * (chosen.value(metric) - best.value(metric))
    if not gained > math.sqrt(2) * noise.deviation(metric, chosen.value(metric)):
        return None
    traded = metric_differences(best, chosen, [metric, *goals, "parameter_count"], goals)
    says = (
        f"within {' and '.join(dict.fromkeys(limited.values()))}, trial {best.number} has the best "
        f"{formatting.label(metric)}: {in_words(traded)}. If the limit says what is good enough, choose by {metric} "
        f"alone: --prefer {metric}"
    )
    return Neighbour(trial=row(best), better_in=metric, trades=traded, says=says)
