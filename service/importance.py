"""How much each parameter matters to each objective: Optuna's conditional PED-ANOVA over the sweep's own trials.

The importance of a parameter is how differently its values are spread among the best tenth of the trials and among all
of them (Watanabe, Bansal and Hutter 2023, arXiv 2304.10255). It is about what was tried, not about cause.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection

from service import schemas
from service.columns import Column, Columns, Indices
from service.models import Sweep
from service.samples import evenly

optuna.logging.set_verbosity(optuna.logging.ERROR)

MOST_TRIALS = 1000
FEWEST_TRIALS = 20
"""The best tenth of fewer is one trial: that says nothing."""
_MOST_CHOICES = 64
_LOG_RATIO = 30.0


def importance(columns: Columns, sweep: Sweep) -> schemas.Importance:
    """Each objective's importances, which add up to 1; none with fewer than FEWEST_TRIALS feasible complete trials."""
    objectives: list[Mapping[str, str]] = sweep.objectives
    parameters: list[str] = sweep.space.get("open_parameters", [])
    judged = columns.judged
    for objective in objectives:
        judged &= ~np.isnan(columns.named(objective["metric"]).values)
    total = int(judged.sum())
    some = evenly(np.flatnonzero(judged)[: sampled_from(total)], MOST_TRIALS)

    def calculate() -> dict[str, dict[str, float]]:
        study = _study(columns, objectives, parameters, some)
        return {each["metric"]: _importances(study, position) for position, each in enumerate(objectives)}

    found: dict[str, dict[str, float]] = {}
    if len(some) >= FEWEST_TRIALS:
        found = columns.lastingly_once(("importance", columns.number[some].tobytes()), calculate)
    return schemas.Importance(
        sweep=sweep.id, trials=len(some), total=total, fewest_trials=FEWEST_TRIALS, objectives=found
    )


def sampled_from(trials: int) -> int:
    """How many of so many trials are sampled: one more in a thousand changes nothing, and would cost a new study."""
    if trials <= MOST_TRIALS:
        return trials
    step = 10 ** (len(str(trials)) - 2)
    return trials - trials % step


def _study(columns: Columns, objectives: list[Mapping[str, str]], parameters: list[str], some: Indices) -> optuna.Study:
    """These trials as a study in which every objective is minimized."""
    study = optuna.create_study(directions=[StudyDirection.MINIMIZE] * len(objectives))
    spaces = {name: _encoded(columns.named(name), some) for name in parameters}
    costs = [
        columns.named(each["metric"]).values[some] * (-1 if each["goal"] == "maximize" else 1) for each in objectives
    ]
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: values[row] for name, (_, values) in spaces.items() if values[row] is not None},
                distributions={name: space for name, (space, values) in spaces.items() if values[row] is not None},
                values=[float(cost[row]) for cost in costs],
            )
            for row in range(len(some))
        ]
    )
    return study


def _encoded(column: Column, some: Indices) -> tuple[BaseDistribution, list[Any]]:
    """A parameter's distribution and values; few numbers go by their order, as they go to the samplers."""
    values = column.values[some]
    present = np.unique(values[~np.isnan(values)])
    if column.labels is not None:
        return CategoricalDistribution(column.labels), [column.at(int(index)) for index in some]
    if len(present) <= _MOST_CHOICES:
        positions = np.searchsorted(present, values)
        encoded = [None if np.isnan(value) else int(at) for value, at in zip(values, positions, strict=True)]
        return IntDistribution(0, max(len(present) - 1, 0)), encoded
    low, high = float(present[0]), float(present[-1])
    space = FloatDistribution(low, high, log=low > 0 and high / low > _LOG_RATIO)
    return space, [None if np.isnan(value) else float(value) for value in values]


def _importances(study: optuna.Study, position: int) -> dict[str, float]:
    # Imported when it is asked for: its forests, which are not used here, would add a second to every start.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        # It warns that low values are taken as good ones, which they are here.
        warnings.simplefilter("ignore")
        found = get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target=lambda trial: trial.values[position]
        )
    return {name: float(value) for name, value in found.items()}
