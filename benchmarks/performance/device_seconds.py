"""Device seconds until a search has found what random search finds, with pruning and a model of the device.

    OMP_NUM_THREADS=1 python -m benchmarks.performance.device_seconds TABLE [--mapping agg] [--seeds 20] [--trials 64]
        [--limit 0.5] [--training-seconds 600] [--out benchmarks/results/device-seconds.json]

TABLE is that of `benchmarks.performance.search`: latencies and losses were measured. **Curves are simulated**: the loss
falls to its end by a power law of the share of the training, whose size and exponent vary from point to point, with a
noise of 0.005 nats on each evaluation. A trial builds and measures first (13 s), trains for `--training-seconds` times
its operations over the table's mean, and builds, measures and scores again (14 s). `--limit` leaves that share of the
table; what breaks it ends after its first measurement. 0: no limit.

Each sampler is asked for `--trials` trials, one after the other, in this process, with the service's own sampler,
pruner's rule and model of the device. Enough is 99 % of the hypervolume that as many random trials have at their end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance.search import DATASET, HEADS, RATIOS, Floats, Table, hypervolume
from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.space.document import Space, parse_document
from service.common.states import TrialState
from service.pruning.decisions import LEAST_CHANCE, is_control
from service.pruning.forecast import LEAST_FINISHED, Forecast, forecast
from service.pruning.fronts import bound_of
from service.scheduling.device_model.device_model import DeviceModel
from service.scheduling.device_model.features import Described
from service.scheduling.device_model.measured import FEWEST_ROWS, MeasuredTrial
from service.scheduling.optuna_study import OptunaStudy
from service.scheduling.studies import TrialResult
from service.sweeps.sampling import population_size

RUNGS = (1 / 9, 2 / 9, 3 / 9, 4 / 9, 6 / 9)
FIRST_SECONDS, LAST_SECONDS = 13.0, 14.0
ENOUGH = 0.99
METRIC = "latency_ms_p50"
REFIT = 1.5
KINDS = ("random", "surrogate", "surrogate pareto", "surrogate pareto device_model")


@dataclass(frozen=True, slots=True)
class Trial:
    """A point that was asked for, with what it would come to."""

    number: int
    chosen: Mapping[str, Any]
    latency: float
    loss: float
    size: float
    """Operations over the table's mean."""

    def shown(self, rung: int) -> float:
        """The validation loss at a rung."""
        text = json.dumps(self.chosen, sort_keys=True).encode()
        generator = np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8]))
        height, exponent = 0.3 * math.exp(0.3 * generator.standard_normal()), 0.5 + 0.1 * generator.standard_normal()
        noise = 0.005 * generator.standard_normal(len(RUNGS))
        return self.loss + height * (RUNGS[rung] ** -exponent - 1.0) + float(noise[rung])

    @property
    def described(self) -> Described:
        """What a model of the device goes by."""
        depth = int(self.chosen["num_layers"])
        return {
            "layers": math.log(depth),
            "width": math.log(int(self.chosen["hidden_size"])),
            "bias": float(self.chosen["attention.bias"]),
            "heads": _mean_logarithm(self.chosen, HEADS, depth),
            "ratio": _mean_logarithm(self.chosen, RATIOS, depth),
        }


def _mean_logarithm(chosen: Mapping[str, Any], name: str, depth: int) -> float:
    return sum(math.log(float(chosen[name.format(layer)])) for layer in range(depth)) / depth


@dataclass
class Run:
    """One search: what it spends, and what it has found by then."""

    table: Table
    limit: float
    training_seconds: float
    prunes: bool
    seed: int
    seconds: float = 0.0
    complete: list[Trial] = field(default_factory=list[Trial])
    measured: list[MeasuredTrial] = field(default_factory=list[MeasuredTrial])
    path: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Device seconds and hypervolume after each trial."""
    pruned: int = 0
    infeasible: int = 0
    _model: DeviceModel | None = None

    def execute(self, trial: Trial) -> TrialResult:
        """Build, measure, train and score it, as far as that goes."""
        self.seconds += FIRST_SECONDS
        self.measured.append(MeasuredTrial(str(trial.number), trial.described, {METRIC: trial.latency}))
        if trial.latency > self.limit:
            self.infeasible += 1
            return TrialResult(TrialState.INFEASIBLE, None, trial.latency / self.limit - 1.0)
        budget_seconds = self.training_seconds * trial.size
        share, expected = self._trained_share(trial)
        self.seconds += share * budget_seconds
        if expected is not None:
            self.pruned += 1
            return TrialResult(TrialState.PRUNED, (trial.latency, expected.mean), spread=expected.spread)
        self.seconds += LAST_SECONDS
        self.complete.append(trial)
        return TrialResult(TrialState.COMPLETE, (trial.latency, trial.loss))

    def is_rejected(self, trial: Trial) -> bool:
        """Whether the model of the device is certain that it breaks the limit; 1 in 20 of these is built."""
        rows = len(self.measured)
        if rows < FEWEST_ROWS or is_control(self.seed + 1, trial.number):
            return False
        if self._model is None or rows >= REFIT * self._model.rows:
            self._model = DeviceModel(list(self.measured))
        if not self._model.knows(METRIC, trial.described):
            return False
        least = self._model.least(METRIC, [trial.described])
        return least is not None and float(least[0]) > self.limit

    def note(self) -> None:
        costs = np.array([(each.latency, each.loss) for each in self.complete]).reshape(-1, 2)
        reference = np.array([min(self.limit, float(self.table.reference[0])), self.table.reference[1]])
        self.path.append((self.seconds, hypervolume(costs, reference)))

    def _trained_share(self, trial: Trial) -> tuple[float, Forecast | None]:
        """How much of its training a trial gets, and what it was expected to come to where it was stopped."""
        if not self.prunes or is_control(self.seed, trial.number) or len(self.complete) < LEAST_FINISHED:
            return 1.0, None
        others = np.array([[each.latency] for each in self.complete])
        losses = np.array([each.loss for each in self.complete])
        bound = bound_of(others, losses, np.array([trial.latency]))
        for rung, share in enumerate(RUNGS):
            seen = np.array([[each.shown(rung), math.log(each.size)] for each in self.complete])
            expected = forecast(seen, losses, np.array([trial.shown(rung), math.log(trial.size)]))
            if expected is not None and expected.chance_below(bound) < LEAST_CHANCE:
                return share, expected
        return 1.0, None


def search(table: Table, space: Space, sizes: Mapping[float, float], kind: str, seed: int, options: Any) -> Run:
    """Ask and tell until the trials have ended."""
    sampler, *with_ = kind.split()
    study = OptunaStudy(
        space,
        ["minimize", "minimize"],
        sampler=sampler,
        seed=seed,
        population=population_size(options.trials),
        uncertain=1,
    )
    limit = float(np.quantile(table.costs[:, 0], options.limit)) if options.limit else math.inf
    run = Run(table, limit, options.training_seconds, "pareto" in with_, seed)
    known: set[str] = set()
    rejected = 0
    while len(run.path) < options.trials and rejected < 20 * options.trials:
        suggestion = study.ask()
        key = json.dumps(suggestion.chosen, sort_keys=True)
        latency, loss = table.costs_of(suggestion.chosen).tolist()
        trial = Trial(suggestion.ask, suggestion.chosen, latency, loss, sizes[latency])
        if key in known or ("device_model" in with_ and limit < math.inf and run.is_rejected(trial)):
            study.tell(suggestion.ask, TrialResult(TrialState.INFEASIBLE, None, 1.0))
            rejected += 1
            continue
        known.add(key)
        study.tell(suggestion.ask, run.execute(trial))
        run.note()
    return run


def until(run: Run, enough: float) -> float | None:
    """Device seconds to a hypervolume; None where it was not reached."""
    return next((seconds for seconds, volume in run.path if volume >= enough), None)


def summary(found: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """Medians (what was not reached counts as more than all), and how many times less than random search."""
    median = {
        kind: float(np.median([math.inf if each is None else each for each in all_])) for kind, all_ in found.items()
    }
    yardstick = np.array([each or math.inf for each in found["random"]])
    return {
        kind: {
            "median_seconds": None if math.isinf(value) else round(value),
            "times_less": None if math.isinf(value) else round(median["random"] / value, 2),
            "median_of_ratios": round(
                float(np.median(yardstick / np.array([math.inf if each is None else each for each in found[kind]]))), 2
            ),
            "reached": sum(each is not None for each in found[kind]),
        }
        for kind, value in median.items()
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", type=Path)
    arguments.add_argument("--mapping", default="agg", choices=["agg", "nn"])
    arguments.add_argument("--kinds", nargs="+", default=list(KINDS))
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--trials", type=int, default=64)
    arguments.add_argument("--limit", type=float, default=0.5)
    arguments.add_argument("--training-seconds", type=float, default=600.0)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    table = Table(options.table, options.mapping, None)
    space = parse_document(table.document(), find_dataset=lambda _: DATASET).space
    with np.load(options.table) as stored:
        operations: Floats = stored["flops"].astype(np.float64)
    sizes = dict(zip(table.costs[:, 0].tolist(), (operations / operations.mean()).tolist(), strict=True))
    found: dict[str, list[float | None]] = {kind: [] for kind in options.kinds}
    counts: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        enough = math.nan
        for kind in options.kinds:
            run = search(table, space, sizes, kind, seed, options)
            if kind == "random":
                enough = ENOUGH * run.path[-1][1]
            found[kind].append(until(run, enough))
            counts.append({"kind": kind, "seed": seed, "pruned": run.pruned, "infeasible": run.infeasible})
            print(seed, kind, found[kind][-1], counts[-1], flush=True)
        write(
            {
                "benchmark": "device_seconds",
                "command": "python -m benchmarks.performance.device_seconds "
                + " ".join(sys.argv[1:]).replace(str(options.table), "TABLE"),
                "machine": machine(),
                "means": summary(found),
                "seconds": found,
                "counts": counts,
            },
            options.out,
        )
    print(json.dumps(summary(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
