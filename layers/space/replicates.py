"""`search.replicates` of a sweep document: how often a trial may be trained again with another seed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from itertools import count
from typing import Final, Literal

from layers.problems import Problem, Problems, shown

MAX_REPLICATES = 20
"""Further trainings of one trial."""

LEFT_OPEN: Final = "auto"
"""The sweep decides by its task, its objectives and its budget."""

SHARE = 0.15
"""Of `budget.trials`: what further trainings may take."""

POINTER = "/search/replicates"

Replicates = int | Literal["auto"]


def read_replicates(written: object, problems: Problems) -> Replicates:
    """What the document says; 0 if that cannot be, which is noted."""
    if written == LEFT_OPEN:
        return LEFT_OPEN
    number = written if isinstance(written, int | float) and not isinstance(written, bool) else -1
    # What is no number at all is in no range either.
    if 0 <= number <= MAX_REPLICATES and number == int(number):
        return int(number)
    remedy = f"{LEFT_OPEN}, or how often a trial is trained again at most: an integer from 0 to {MAX_REPLICATES}"
    problems.add(POINTER, f"{shown(written)} is not in range", remedy)
    return 0


def check_replicates(
    replicates: Replicates,
    task: str,
    objectives: Iterable[str],
    open_parameters: Collection[str],
    problems: Problems,
) -> None:
    """Note if trials cannot be trained again, though a number of replicates is asked for."""
    if replicates in (0, LEFT_OPEN):
        return
    lack = replicates_lack(task, objectives, open_parameters)
    if lack is not None:
        problems.add(POINTER, lack, "leave replicates out, or write 0")


def most_of(trials: int) -> int:
    """Further trainings that a budget of so many trials has room for."""
    return math.floor(SHARE * trials)


def replicate_notes(replicates: Replicates, trials: int, points: int | None) -> Iterator[Problem]:
    """What a number of replicates means in a budget of so many trials, if that is not what its author expects.

    `points` of the space keep the rules; None if they are not known, or too many.
    """
    if replicates in (0, LEFT_OPEN):
        return
    most = most_of(trials)
    if most == 0:
        detail = f"nothing is trained again: {SHARE:.0%} of a budget of {trials} trials is less than one training"
        yield Problem(POINTER, detail, f"give budget.trials at least {math.ceil(1 / SHARE)}, or leave replicates out")
    elif points is not None and trials - most < points <= trials:
        detail = (
            f"further trainings may take {most} of the {trials} trials: as few as {trials - most} of the {points} "
            "points of the space are tried then"
        )
        enough = next(budget for budget in count(points) if budget - most_of(budget) >= points)
        yield Problem(POINTER, detail, f"give budget.trials {enough}, which has room for both, or leave replicates out")


def replicates_lack(task: str, objectives: Iterable[str], open_parameters: Collection[str]) -> str | None:
    """Why the trials of a sweep cannot be trained again with further seeds; None if they can."""
    if task == "probe":
        return "a probe learns nothing: there is nothing to train again"
    if "validation_loss" not in objectives:
        return "validation_loss is no objective: further trainings would decide nothing"
    if "training.seed" in open_parameters:
        return "training.seed is open: each seed is a point of its own already"
    return None
