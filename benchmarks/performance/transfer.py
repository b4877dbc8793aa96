"""How much sooner a sweep gets somewhere that starts from an earlier one, and what a misleading earlier one costs.

    OMP_NUM_THREADS=1 python -m benchmarks.performance.transfer [--problems plain conditional quickstart_two]
        [--seeds 20] [--trials 60] [--earlier 100] [--out benchmarks/results/transfer.json]

The problems of `landscapes`. The earlier sweep searches learning rates from 1e-5 to 1e-3 where this one searches 1e-4
to 1e-1, of the quickstart's trainings from 1e-3 to 4e-3 where this one searches 2e-3 to 8e-3, on one of two landscapes:

related      this one's, with a loss that is 0.1 larger and a latency, where there is one, 1.3 times as large
misleading   what another point costs: that with the parameters turned round on their scales

Counted are the trials until a search dominates 50, 75, 90 and 95 % of what searches without an earlier sweep dominate
at their ends on average (never: one more than the budget); the means of both, and their ratio with a 95 % interval
(bootstrap over seeds). The shares dominated are counted as `landscapes` does. Results of other problems that
the file has are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.performance.landscapes import PROBLEMS, Problem, dominated_share
from benchmarks.performance.landscapes import search as search_by
from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.space.document import Rejection, Space
from service.scheduling.optuna_study import OptunaStudy
from service.scheduling.studies import EarlierResult, TrialResult
from service.sweeps.sampling import population_size

Floats = NDArray[np.float64]
KINDS = ("related", "misleading")
SHARES = (0.5, 0.75, 0.9, 0.95)
Rates = Mapping[str, Any]
MADE_UP_RATES: tuple[Rates, Rates] = ({"min": 1e-5, "max": 1e-3, "log": True}, {"min": 1e-4, "max": 1e-1, "log": True})
RATES: Mapping[str, tuple[Rates, Rates]] = {
    name: ({"min": 1e-3, "max": 4e-3, "log": True}, {"min": 2e-3, "max": 8e-3, "log": True})
    for name in ("quickstart", "quickstart_two")
}
"""The learning rates of the earlier sweep and of this one, where they are not those of the made-up problems."""
CHANGES: Mapping[str, Callable[[float], float]] = {
    "latency_ms_p50": lambda latency: 1.3 * latency,
    "validation_loss": lambda loss: loss + 0.1,
}
"""What is otherwise in a related sweep."""


def with_rates(problem: Problem, rates: Rates) -> Problem:
    """The problem with other learning rates."""
    training = {**problem.sections["training"], "learning_rate": rates}
    return replace(problem, sections={**problem.sections, "training": training})


def turned(values: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """The point with every parameter turned round on its scale, but for those that say which others there are."""
    found = dict(values)
    deciding = {name for parameter in space.open if parameter.when is not None for name in parameter.when.names}
    for parameter in space.open:
        value = values.get(parameter.name)
        if value is None or parameter.name in deciding:
            continue
        if parameter.kind == "values":
            found[parameter.name] = parameter.values[-1 - parameter.values.index(value)]
        elif parameter.log:
            found[parameter.name] = parameter.low * parameter.high / value
        else:
            turned_round = parameter.low + parameter.high - value
            found[parameter.name] = int(turned_round) if parameter.kind == "integer" else turned_round
    return found


def search(
    problem: Problem, seed: int, trials: int, earlier: Sequence[EarlierResult] = ()
) -> tuple[Floats, list[EarlierResult]]:
    """The costs of each of so many trials (infinite: not feasible), and the complete ones for a later search."""
    space = problem.space()
    goals = ["minimize"] * len(problem.metrics)
    population = population_size(trials)
    study = OptunaStudy(space, goals, sampler="surrogate", seed=seed, population=population, earlier=earlier)
    costs: list[tuple[float, ...]] = []
    complete: list[EarlierResult] = []
    while len(costs) < trials:
        suggestion = study.ask()
        values = space.resolve(suggestion.chosen)
        rejection = space.complete_or_reject(values)
        if isinstance(rejection, Rejection):
            study.tell(suggestion.ask, TrialResult("infeasible", None, rejection.violation))
            continue
        result = problem.end(values)
        study.tell(suggestion.ask, result)
        is_feasible = result.values is not None and result.violation <= 0
        costs.append(result.values if is_feasible else (math.inf,) * len(goals))
        if result.values is not None:
            complete.append(EarlierResult(suggestion.chosen, result.values, result.violation))
    return np.array(costs), complete


def earlier_results(problem: Problem, kind: str, seed: int, trials: int) -> list[EarlierResult]:
    """What an earlier sweep of this kind found; `problem` has its learning rates."""
    space = problem.space()

    def end(values: Mapping[str, Any]) -> TrialResult:
        result = problem.end(turned(values, space) if kind == "misleading" else values)
        if kind == "misleading" or result.values is None:
            return result
        costs = dict(zip(problem.metrics, result.values, strict=True))
        changed = {name: CHANGES[name](cost) if name in CHANGES else cost for name, cost in costs.items()}
        return TrialResult(result.state, tuple(changed.values()), result.violation)

    return search(replace(problem, end=end), 1000 + seed, trials)[1]


def curve(costs: Floats, low: Floats, high: Floats) -> list[float]:
    """The share dominated after each trial."""
    return [dominated_share(costs[:count], low, high) for count in range(1, len(costs) + 1)]


def trials_until(shares: Sequence[float], goal: float) -> int:
    """How many trials a search needed; one more than it had where it did not get there."""
    return next((count for count, share in enumerate(shares, 1) if share >= goal), len(shares) + 1)


def ratio(with_earlier: NDArray[np.intp], without: NDArray[np.intp]) -> tuple[float, float, float]:
    """Of the means, with its interval."""
    generator = np.random.default_rng(0)
    rows = generator.integers(len(without), size=(2000, len(without)))
    drawn = with_earlier[rows].mean(axis=1) / without[rows].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(with_earlier.mean() / without.mean()), float(low), float(high)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--problems", nargs="+", default=["plain", "conditional", "quickstart_two"], choices=list(PROBLEMS)
    )
    arguments.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--trials", type=int, default=60)
    arguments.add_argument("--earlier", type=int, default=100)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    known = json.loads(options.out.read_text())["results"] if options.out and options.out.exists() else []
    results: list[dict[str, Any]] = [row for row in known if row["problem"] not in options.problems]
    for name in options.problems:
        earlier, problem = (with_rates(PROBLEMS[name], rates) for rates in RATES.get(name, MADE_UP_RATES))
        runs = {"none": [search(problem, seed, options.trials)[0] for seed in range(options.seeds)]}
        for kind in options.kinds:
            runs[kind] = [
                search(problem, seed, options.trials, earlier_results(earlier, kind, seed, options.earlier))[0]
                for seed in range(options.seeds)
            ]
        every = np.concatenate([costs for found in runs.values() for costs in found])
        every = every[np.isfinite(every).all(axis=1)]
        low, high = every.min(axis=0), np.quantile(search_by(problem, "random", 1_000_000, 1000), 0.95, axis=0)
        curves = {kind: [curve(costs, low, high) for costs in found] for kind, found in runs.items()}
        ends = [shares[-1] for shares in curves["none"]]
        for kind in options.kinds:
            for share in SHARES:
                # The same for all: of its own end no search falls short.
                goal = share * float(np.mean(ends))
                counts = {
                    each: np.array([trials_until(shares, goal) for shares in curves[each]]) for each in (kind, "none")
                }
                found, least, most = ratio(counts[kind], counts["none"])
                results.append(
                    {
                        "problem": name,
                        "earlier": kind,
                        "share": share,
                        "seeds": options.seeds,
                        "trials": options.trials,
                        "earlier_trials": options.earlier,
                        "trials_with": round(float(counts[kind].mean()), 2),
                        "trials_without": round(float(counts["none"].mean()), 2),
                        "ratio": round(found, 3),
                        "interval": [round(least, 3), round(most, 3)],
                        "end_with": round(float(np.mean([shares[-1] for shares in curves[kind]])), 4),
                        "end_without": round(float(np.mean(ends)), 4),
                    }
                )
                print(results[-1], flush=True)
    report = {
        "benchmark": "transfer",
        "command": f"python -m benchmarks.performance.transfer {' '.join(sys.argv[1:])}",
        "machine": machine(),
        "results": results,
    }
    write(report, options.out)
    print(json.dumps({"results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
