"""What a sweep will cost, in words: the same in a terminal and on a page."""

from __future__ import annotations

from layersweep.display import units
from layersweep.records.sweeps import Budget, CostEstimate

LEAST_OF_A_WHOLE = 0.99
"""A greater part of a device is all of it, but for rounding."""

UNKNOWN = (
    "Time: unknown, as no three comparable trials have run here: of this task, on one kind of device, with at least a "
    "fifth of the steps and models of at least a tenth of the size."
)


def cost_in_words(estimate: CostEstimate | None, budget: Budget) -> str:
    """How long a trial and the budget will take, what the figures rest on, and how wrong they may be."""
    if estimate is None:
        limit = budget["wall_seconds"]
        return UNKNOWN if limit is None else f"{UNKNOWN} It ends after {units.duration(limit)} at most."
    at_once = f"{estimate.get('parallel', budget['parallel'])} at a time{_shared(estimate)}"
    error = units.share(estimate["median_error_share"])
    return (
        f"Time: about {units.duration(estimate['trial_seconds'])} a trial, {_until_the_end(estimate, budget)}, "
        f"{at_once}. This rests on {units.plural(estimate['from_trials'], 'comparable trial')} on "
        f"{estimate['target']}; each of them, predicted from the others, is {error} off at the "
        "median. Reused, infeasible and pruned trials cost less."
    )


def _shared(estimate: CostEstimate) -> str:
    """Which part of a device it has, if that is less than one."""
    part = estimate["device_seconds"] / max(estimate["wall_seconds"], 1e-9)
    return "" if part > LEAST_OF_A_WHOLE else f" on {units.share(part)} of a device, which other active sweeps share"


def _until_the_end(estimate: CostEstimate, budget: Budget) -> str:
    trials = units.plural(budget["trials"], "trial")
    fitting = estimate.get("trials", budget["trials"])
    whole = units.duration(estimate["wall_seconds"])
    if fitting >= budget["trials"]:
        return f"{whole} for {trials}"
    return f"so about {fitting:,} of {trials} within the budget of time ({whole})"
