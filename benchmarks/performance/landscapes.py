"""How well samplers search three made-up problems, and trainings of the quickstart that were measured once.

    OMP_NUM_THREADS=1 python -m benchmarks.performance.landscapes [--problems plain conditional per_layer quickstart]
        [--samplers surrogate tpe nsga2 random] [--seeds 20] [--trials 60] [--out benchmarks/results/landscapes.json]

Of three problems latency, loss and size follow from the parameters by formulas: nothing is measured. `plain` has two
objectives, and what is too slow is infeasible and gets no loss; of `conditional` some trainings diverge and are pruned;
`per_layer` has three objectives and a constraint on the loss, judged at the end. `quickstart` has three objectives, and
what was measured (`benchmarks.performance.landscapes_measured`); `quickstart_two` leaves the parameters out, and
`quickstart_timed` has latency and memory. The score: the share of a box of costs that a search dominates, from the best
of all searches to the 95 % quantile of 1,000 random points, counted on 4,096 points of it. Results of other problems
that the file has are kept.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from benchmarks.performance.landscapes_measured import (
    COUNTED,
    TIMED,
    MeasuredPoints,
    counted_points,
    quickstart_sections,
    timed_points,
)
from benchmarks.performance.search import DATASET
from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.metrics import Goal
from layers.space.document import Rejection, Space, parse_document
from service.common.states import TrialState
from service.scheduling.optuna_study import OptunaStudy
from service.scheduling.studies import TrialResult
from service.sweeps.sampling import population_size

Floats = NDArray[np.float64]
POINTS_LOG2 = 12
RATE = "training.learning_rate"


@dataclass(frozen=True, slots=True)
class Problem:
    """The sections of a sweep document, and what becomes of a point, from all its values."""

    sections: Mapping[str, Any]
    metrics: Sequence[str]
    end: Callable[[Mapping[str, Any]], TrialResult]

    def space(self) -> Space:
        document = {
            "name": "landscape",
            "task": "causal_lm",
            "dataset": "characters",
            "inference": {"batch_size": 1, "sequence_length": 16},
            "objectives": [{"metric": metric, "goal": "minimize"} for metric in self.metrics],
            **self.sections,
        }
        return parse_document(document, find_dataset=lambda _: DATASET).space


def _layers(values: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Of each layer its heads and the width of its feed-forward part."""
    shared = values.get("attention.num_attention_heads"), values.get("mlp.ffn_hidden_size")
    return [
        (
            float(values.get(f"layers.{layer}.attention.num_attention_heads", shared[0])),
            float(values.get(f"layers.{layer}.mlp.ffn_hidden_size", shared[1])),
        )
        for layer in range(values["num_layers"])
    ]


def _size(values: Mapping[str, Any]) -> float:
    hidden = values["hidden_size"]
    return hidden * (64 + sum(4 * hidden + 2 * width for _, width in _layers(values)))


def _latency(values: Mapping[str, Any]) -> float:
    hidden = values["hidden_size"]
    return 0.2 + sum(0.02 * heads + hidden * (hidden + width) * 2e-6 for heads, width in _layers(values))


def _loss(values: Mapping[str, Any]) -> float:
    """Falls with size and heads, a little more in late layers; the best rate falls with the width."""
    late = sum((1 + 0.1 * layer) * math.log(heads) for layer, (heads, _) in enumerate(_layers(values)))
    best_rate = -2.5 - 0.5 * math.log2(values["hidden_size"] / 64)
    rate = 0.08 * (math.log10(values[RATE]) - best_rate) ** 2
    return 1.2 + 12 * _size(values) ** -0.25 - 0.01 * late + rate


def _plain(values: Mapping[str, Any]) -> TrialResult:
    latency = _latency(values)
    if latency > 4:
        return TrialResult(TrialState.INFEASIBLE, None, math.log1p(latency - 4))
    loss = _loss(values) + 0.5 * (values["training.dropout"] - 0.1) ** 2
    return TrialResult(TrialState.COMPLETE, (latency, loss), -math.log1p(4 - latency))


def _conditional(values: Mapping[str, Any]) -> TrialResult:
    latency, loss = _latency(values), _loss(values)
    if values["attention.position_embedding_type"] == "relative":
        latency *= 1.1
        loss -= 0.12 - 0.02 * abs(math.log2(values["attention.num_buckets"]) - 4)
    if values["norm.kind"] == "RmsNorm":
        latency *= 0.95
        loss += 0.02 * abs(math.log10(values["norm.eps"]) + 6)
    is_diverging = values[RATE] * values["hidden_size"] > 3
    return TrialResult(TrialState.PRUNED) if is_diverging else TrialResult(TrialState.COMPLETE, (latency, loss))


def _per_layer(values: Mapping[str, Any]) -> TrialResult:
    loss = _loss(values)
    violation = math.copysign(math.log1p(abs(loss - 2.1)), loss - 2.1)
    return TrialResult(TrialState.COMPLETE, (_latency(values), loss, _size(values)), violation)


@functools.cache
def _counted() -> MeasuredPoints:
    """They are read where they are asked for: the tables are large."""
    return counted_points(PROBLEMS["quickstart"].space())


@functools.cache
def _timed() -> MeasuredPoints:
    return timed_points(PROBLEMS["quickstart"].space())


def _quickstart(values: Mapping[str, Any]) -> TrialResult:
    return TrialResult(TrialState.COMPLETE, _counted().costs_of(values))


def _quickstart_two(values: Mapping[str, Any]) -> TrialResult:
    operations, _, loss = _counted().costs_of(values)
    return TrialResult(TrialState.COMPLETE, (operations, loss))


def _quickstart_timed(values: Mapping[str, Any]) -> TrialResult:
    return TrialResult(TrialState.COMPLETE, _timed().costs_of(values))


_RATES = {"min": 1e-5, "max": 1e-1, "log": True}
_WIDTHS = {"values": [64, 128, 256, 512]}
_BOTH = ("latency_ms_p50", "validation_loss")
PROBLEMS = {
    "plain": Problem(
        {
            "model": {
                "num_layers": {"min": 1, "max": 12},
                "hidden_size": _WIDTHS,
                "attention": {"num_attention_heads": {"values": [2, 4, 8, 16]}},
                "mlp": {"ffn_hidden_size": {"min": 64, "max": 2048, "step": 64}},
            },
            "training": {"learning_rate": _RATES, "dropout": {"min": 0.0, "max": 0.5}},
            "constraints": ["latency_ms_p50 <= 4"],
        },
        _BOTH,
        _plain,
    ),
    "conditional": Problem(
        {
            "model": {
                "num_layers": {"min": 1, "max": 8},
                "hidden_size": _WIDTHS,
                "attention": {
                    "num_attention_heads": {"values": [2, 4, 8]},
                    "position_embedding_type": {"values": ["learned_absolute", "relative"]},
                    "num_buckets": {
                        "values": [4, 8, 16, 32],
                        "when": "attention.position_embedding_type == 'relative'",
                    },
                },
                "norm": {
                    "kind": {"values": ["LayerNorm", "RmsNorm"]},
                    "eps": {"min": 1e-8, "max": 1e-4, "log": True, "when": "norm.kind == 'RmsNorm'"},
                },
                "mlp": {"ffn_hidden_size": {"values": [64, 128, 256, 512, 1024, 2048]}},
            },
            "training": {"learning_rate": _RATES},
        },
        _BOTH,
        _conditional,
    ),
    "per_layer": Problem(
        {
            "model": {
                "num_layers": {"min": 4, "max": 10},
                "hidden_size": _WIDTHS,
                "attention": {"num_attention_heads": {"values": [2, 4, 8], "per_layer": True}},
                "mlp": {"ffn_hidden_size": {"values": [64, 256, 512, 1024], "per_layer": True}},
            },
            "training": {"learning_rate": _RATES},
            "constraints": ["validation_loss <= 2.1"],
        },
        (*_BOTH, "parameter_count"),
        _per_layer,
    ),
    "quickstart": Problem(quickstart_sections(), COUNTED, _quickstart),
    "quickstart_two": Problem(quickstart_sections(), (COUNTED[0], COUNTED[-1]), _quickstart_two),
    "quickstart_timed": Problem(quickstart_sections(), TIMED, _quickstart_timed),
}


def search(problem: Problem, sampler: str, seed: int, trials: int) -> Floats:
    """The costs of the feasible ones among so many trials; a point that breaks a rule is none."""
    space = problem.space()
    goals: list[Goal] = ["minimize"] * len(problem.metrics)
    study = OptunaStudy(space, goals, sampler=sampler, seed=seed, population=population_size(trials))
    found: list[tuple[float, ...]] = []
    tried = 0
    while tried < trials:
        suggestion = study.ask()
        values = space.resolve(suggestion.chosen)
        rejection = space.complete_or_reject(values)
        if isinstance(rejection, Rejection):
            study.tell(suggestion.ask, TrialResult(TrialState.INFEASIBLE, None, rejection.violation))
            continue
        tried += 1
        result = problem.end(values)
        study.tell(suggestion.ask, result)
        if result.values is not None and result.violation <= 0:
            found.append(result.values)
    return np.array(found).reshape(-1, len(goals))


def dominated_share(costs: Floats, low: Floats, high: Floats) -> float:
    """Of the points of the box between two corners, how many some row dominates."""
    points = low + qmc.Sobol(len(low), scramble=False).random_base2(POINTS_LOG2) * (high - low)
    is_dominated = np.zeros(len(points), dtype=bool)
    for row in costs:
        is_dominated |= (row <= points).all(axis=1)
    return float(is_dominated.mean())


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = [name for name in PROBLEMS if name != "quickstart_two"]
    arguments.add_argument("--problems", nargs="+", default=default, choices=list(PROBLEMS))
    arguments.add_argument("--samplers", nargs="+", default=["surrogate", "tpe", "nsga2", "random"])
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--trials", type=int, default=60)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    known = json.loads(options.out.read_text())["results"] if options.out and options.out.exists() else []
    results: list[dict[str, Any]] = [row for row in known if row["problem"] not in options.problems]
    for name in options.problems:
        problem = PROBLEMS[name]
        found = {
            sampler: [search(problem, sampler, seed, options.trials) for seed in range(options.seeds)]
            for sampler in options.samplers
        }
        low = np.concatenate([costs for runs in found.values() for costs in runs]).min(axis=0)
        high = np.quantile(search(problem, "random", 1_000_000, 1000), 0.95, axis=0)
        for sampler, runs in found.items():
            shares = [dominated_share(costs, low, high) for costs in runs]
            half = 1.96 * float(np.std(shares, ddof=1)) / len(shares) ** 0.5 if len(shares) > 1 else None
            results.append(
                {
                    "problem": name,
                    "sampler": sampler,
                    "seeds": len(shares),
                    "trials": options.trials,
                    "mean": round(float(np.mean(shares)), 4),
                    "half_interval": None if half is None else round(half, 4),
                    "shares": [round(share, 4) for share in shares],
                }
            )
            print({key: value for key, value in results[-1].items() if key != "shares"}, flush=True)
    report = {
        "benchmark": "landscapes",
        "command": f"python -m benchmarks.performance.landscapes {' '.join(sys.argv[1:])}",
        "machine": machine(),
        "results": results,
    }
    write(report, options.out)
    print(json.dumps({"results": [{key: each[key] for key in each if key != "shares"} for each in results]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
