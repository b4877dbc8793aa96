"""How much each parameter matters to each objective: Optuna's conditional PED-ANOVA over the sweep's own trials.

The importance of a parameter is how differently its values are spread among the best tenth of the trials (of 10 to 19
trials: among the best two) and among all of them (Watanabe, Bansal and Hutter 2023, arXiv 2304.10255). It is about
what was tried, not about cause.

How sure each is: its interval over bootstrap resamples of the trials (Efron 1979), and the noise, which is what it
reaches if the objective is shuffled among the trials, so that no parameter has an effect.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection

from layers.space.allowed_time import AllowedTime
from layers.space.document_fields import Objective
from service.database.models import Sweep
from service.results import schemas as result_schemas
from service.results.columns import Column, Columns, Floats, Indices
from service.results.plot_selection import evenly

optuna.logging.set_verbosity(optuna.logging.ERROR)

MOST_TRIALS = 1000
MOST_RESAMPLES = 30
FEWEST_RESAMPLES = 10
RESAMPLED_TRIALS = 8_000
"""Resamples times trials: with many trials an importance is surer, and each resample takes longer."""
LEAST_RESAMPLES = 2
"""Resamples that are calculated however long they take."""
SECONDS = 6.0
"""Of this thread's CPU time, shared by the objectives, after which there are no more resamples: with hundreds of
parameters each takes a second."""
INTERVAL = (0.05, 0.95)
BEST_SHARE = 0.1
FEWEST_BEST = 2
"""Trials that count as the best of few: the values of one alone say nothing of a spread."""
FEWEST_TRIALS = 10
"""With fewer, the best are more than a fifth of all."""
_MOST_CHOICES = 64
_LOG_RATIO = 30.0


@dataclass(frozen=True, slots=True)
class _Shares:
    """The importances for one objective by parameter, and how sure they are."""

    found: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    noise: dict[str, float]
    resamples: int = 0
    is_constant: bool = False


def importance(columns: Columns, sweep: Sweep) -> result_schemas.Importance:
    """Each objective's importances, which add up to 1, or are all 0 if it is the same in all trials.

    None with fewer than FEWEST_TRIALS feasible complete trials.
    """
    objectives = sweep.objectives
    parameters = sweep.space.get("open_parameters", [])
    judged = columns.competing
    for objective in objectives:
        judged &= ~np.isnan(columns.named(objective["metric"]).values)
    total = int(judged.sum())
    some = evenly(np.flatnonzero(judged)[: sampled_from(total)], MOST_TRIALS)

    def calculate() -> dict[str, _Shares]:
        study = _study(columns, objectives, parameters, some)
        seconds = SECONDS / len(objectives)
        return {
            each["metric"]: _shares(study, parameters, position, AllowedTime(seconds))
            for position, each in enumerate(objectives)
        }

    found: dict[str, _Shares] = {}
    if len(some) >= FEWEST_TRIALS:
        found = columns.cached_across_versions(("importance", columns.number[some].tobytes()), calculate)
    return result_schemas.Importance(
        sweep=sweep.id,
        trials=len(some),
        total=total,
        fewest_trials=FEWEST_TRIALS,
        objectives={metric: shares.found for metric, shares in found.items()},
        intervals={metric: shares.intervals for metric, shares in found.items()},
        noise={metric: shares.noise for metric, shares in found.items()},
        resamples={metric: shares.resamples for metric, shares in found.items()},
        constant=[metric for metric, shares in found.items() if shares.is_constant],
    )


def sampled_from(trials: int) -> int:
    """How many of so many trials are sampled: one more in a thousand changes nothing, and would cost a new study."""
    if trials <= MOST_TRIALS:
        return trials
    step = 10 ** (len(str(trials)) - 2)
    return trials - trials % step


def _study(columns: Columns, objectives: list[Objective], parameters: list[str], some: Indices) -> optuna.Study:
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


def _shares(study: optuna.Study, parameters: list[str], position: int, allowed: AllowedTime) -> _Shares:
    trials = study.get_trials(deepcopy=False)
    scores = np.array([trial.values[position] for trial in trials])
    nothing = dict.fromkeys(parameters, 0.0)
    if scores.min() == scores.max():
        return _Shares(nothing, dict.fromkeys(parameters, (0.0, 0.0)), nothing, is_constant=True)
    found = _divergences(study, parameters, scores)
    whole = float(sum(found.values()))
    if whole == 0:
        return _Shares(nothing, dict.fromkeys(parameters, (0.0, 0.0)), nothing)
    resamples = int(np.clip(RESAMPLED_TRIALS // len(trials), FEWEST_RESAMPLES, MOST_RESAMPLES))
    # Seeded: the same trials have the same figures.
    source = np.random.default_rng(len(trials))
    drawn: list[dict[str, float]] = []
    by_chance: list[dict[str, float]] = []
    while len(drawn) < resamples and (len(drawn) < LEAST_RESAMPLES or not allowed.is_over):
        some = source.integers(len(trials), size=len(trials))
        again = optuna.create_study(directions=study.directions)
        again.add_trials([trials[index] for index in some])
        drawn.append(_normalized(_divergences(again, parameters, scores[some])))
        by_chance.append(_divergences(study, parameters, source.permutation(scores)))
    intervals: dict[str, tuple[float, float]] = {}
    for name in parameters:
        low, high = np.quantile([each[name] for each in drawn], INTERVAL)
        intervals[name] = (float(low), float(high))
    return _Shares(
        found={name: value / whole for name, value in sorted(found.items(), key=lambda pair: -pair[1])},
        intervals=intervals,
        noise={
            name: float(np.quantile([each[name] for each in by_chance], INTERVAL[1])) / whole for name in parameters
        },
        resamples=len(drawn),
    )


def _normalized(divergences: dict[str, float]) -> dict[str, float]:
    whole = sum(divergences.values())
    return {name: value / whole if whole else 0.0 for name, value in divergences.items()}


def _divergences(study: optuna.Study, parameters: list[str], scores: Floats) -> dict[str, float]:
    """How differently each parameter's values are spread among the lowest scores and among all."""
    # Imported when it is asked for: its forests, which are not used here, would add a second to every start.
    from optuna.importance import PedAnovaImportanceEvaluator

    with warnings.catch_warnings():
        # It warns that low values are taken as good ones, which they are here.
        warnings.simplefilter("ignore")
        tried = {name for trial in study.get_trials(deepcopy=False) for name in trial.params}
        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(BEST_SHARE, FEWEST_BEST / len(scores)))
        found = evaluator.evaluate(
            study,
            params=[name for name in parameters if name in tried],
            target=lambda trial: float(scores[trial.number]),
        )
    return {name: float(found.get(name, 0.0)) for name in parameters}
