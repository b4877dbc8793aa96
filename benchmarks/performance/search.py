"""How well samplers search: the share of a table's hypervolume after some trials, in the product's own encoding.

    OMP_NUM_THREADS=1 python -m benchmarks.performance.search TABLE [--samplers surrogate tpe random nsga2]
        [--mappings agg model nn] [--seeds 20] [--trials 200] [--parallel 1] [--best model_front.json]
        [--cost 200:0 5000:1600] [--out benchmarks/results/search.json]

TABLE is an .npz of architectures that were measured, one a row: `n` layers, width `e`, bias `b`, heads `h` and
feed-forward ratios `r` of each layer (0 where there is none), latency `lat` and perplexity `ppl`; such as HW-GPT-Bench
publishes them. A study proposes a point; a mapping says which latency and loss it has:

agg    the row of the same depth, width and bias that is nearest in mean heads and mean ratio; ties by the layers
nn     the row that is nearest by the layers alone
model  a regression of the table: nothing is snapped

The share: hypervolume of what was found over that of the whole table (of `model`: of the best that --best says, a JSON
object {table's stem after the first underscore: {"log": hypervolume}}), in latency and log perplexity, from the worst
of the table and a tenth of its range. Studies are asked and told in this process; `parallel` results are outstanding.
NAME:each is a sampler that draws each layer by itself, as studies do that began before layers were drawn level first.
--cost takes the time of suggestions too, after so many told at random and with so many that run: of the first one,
which fits models, and of those after it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.dataset_facts import DatasetDescription
from layers.metrics import Goal
from layers.space.document import Space, parse_document
from service.common.states import TrialState
from service.scheduling.optuna_study import STARTS, OptunaStudy
from service.scheduling.studies import TrialResult
from service.sweeps.sampling import population_size

Floats = NDArray[np.float64]
BUDGETS = (30, 50, 100, 200)
COST_ASKS = 96
DATASET: DatasetDescription = {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 64}}
HEADS, RATIOS = "layers.{}.attention.num_attention_heads", "layers.{}.mlp.ffn_hidden_size"


class Table:
    """Architectures with their costs (latency, log perplexity), and the costs of any other by a mapping."""

    def __init__(self, path: Path, mapping: str, best: float | None) -> None:
        stored = np.load(path)
        self.depths, self.widths, self.biases = (stored[name].astype(np.intp) for name in "neb")
        self.heads, self.ratios = (stored[name].astype(np.float64) for name in "hr")
        self.costs: Floats = np.c_[stored["lat"], np.log(stored["ppl"])]
        self.mapping = mapping
        self.reference = self.costs.max(0) + 0.1 * np.ptp(self.costs, axis=0)
        self.whole = hypervolume(self.costs, self.reference) if mapping != "model" else best or float("nan")
        self._head_span, self._ratio_span = np.ptp(self.heads[self.heads > 0]), np.ptp(self.ratios[self.ratios > 0])
        self._coefficients: dict[tuple[int, int], Floats] = {}

    def document(self) -> dict[str, Any]:
        """The table's architectures as a sweep document; a layer's width stands for its ratio to the model's."""

        def values(column: NDArray[Any]) -> dict[str, Any]:
            return {"values": sorted({int(value) for value in column.flat if value})}

        return {
            "name": "table",
            "task": "causal_lm",
            "dataset": "characters",
            "model": {
                "num_layers": values(self.depths),
                "hidden_size": values(self.widths),
                "attention": {
                    "num_attention_heads": values(self.heads) | {"per_layer": True},
                    "bias": {"values": [False, True]},
                },
                "mlp": {"ffn_hidden_size": values(self.ratios) | {"per_layer": True}},
            },
            "training": {"steps": 10, "batch_size": 4, "learning_rate": 1e-3},
            "inference": {"batch_size": 1, "sequence_length": 16},
            "objectives": [
                {"metric": "latency_ms_p50", "goal": "minimize"},
                {"metric": "validation_loss", "goal": "minimize"},
            ],
        }

    def costs_of(self, chosen: Mapping[str, Any]) -> Floats:
        """Latency and log perplexity of a point."""
        depth, width, bias = int(chosen["num_layers"]), int(chosen["hidden_size"]), int(chosen["attention.bias"])
        heads = np.array([float(chosen[HEADS.format(layer)]) for layer in range(depth)])
        ratios = np.array([float(chosen[RATIOS.format(layer)]) for layer in range(depth)])
        if self.mapping == "model":
            padding = (0, self.heads.shape[1] - depth)
            seen = self._seen(np.array([depth]), np.pad(heads, padding)[None], np.pad(ratios, padding)[None])
            return (seen @ self._regression(width, bias))[0]
        rows = np.flatnonzero((self.depths == depth) & (self.widths == width) & (self.biases == bias))
        head_rows, ratio_rows = self.heads[rows, :depth], self.ratios[rows, :depth]
        apart = (
            np.abs(head_rows - heads).sum(1) / self._head_span + np.abs(ratio_rows - ratios).sum(1) / self._ratio_span
        )
        if self.mapping == "nn":
            return self.costs[rows[np.argmin(apart)]]
        means = ((head_rows.sum(1) - heads.sum()) / depth / self._head_span) ** 2
        means += ((ratio_rows.sum(1) - ratios.sum()) / depth / self._ratio_span) ** 2
        return self.costs[rows[np.lexsort((rows, apart, np.round(means, 12)))[0]]]

    def _regression(self, width: int, bias: int) -> Floats:
        if (width, bias) not in self._coefficients:
            rows = (self.widths == width) & (self.biases == bias)
            seen = self._seen(self.depths[rows], self.heads[rows], self.ratios[rows])
            normal = seen.T @ seen + 1e-2 * np.eye(seen.shape[1])
            self._coefficients[width, bias] = np.linalg.solve(normal, seen.T @ self.costs[rows]).astype(np.float64)
        return self._coefficients[width, bias]

    def _seen(self, depths: NDArray[np.intp], heads: Floats, ratios: Floats) -> Floats:
        """Depth and mean heads and ratio with their products, and each layer's own less the mean."""
        means = [(each.sum(1) / depths) for each in (heads, ratios)]
        sums = np.c_[
            depths - self.depths.min(),
            (means[0] - self.heads[self.heads > 0].min()) / self._head_span,
            (means[1] - self.ratios[self.ratios > 0].min()) / self._ratio_span,
        ]
        left, right = np.triu_indices(3)
        own = [
            (each - mean[:, None]) * (each > 0) / span
            for each, mean, span in zip((heads, ratios), means, (self._head_span, self._ratio_span), strict=True)
        ]
        return np.c_[np.ones(len(depths)), sums, sums[:, left] * sums[:, right], own[0], own[1]]


def hypervolume(costs: Floats, reference: Floats) -> float:
    """The area that two costs dominate, up to the reference."""
    area, lowest = 0.0, reference[1]
    for first, second in costs[np.lexsort((costs[:, 1], costs[:, 0]))]:
        if second < lowest and first < reference[0]:
            area += (reference[0] - first) * (lowest - second)
            lowest = second
    return float(area)


def search(table: Table, space: Space, sampler: str, seed: int, trials: int, parallel: int) -> dict[str, Any]:
    """Ask and tell until the trials have ended."""
    name, _, starts = sampler.partition(":")
    study = OptunaStudy(
        space,
        ["minimize", "minimize"],
        sampler=name,
        seed=seed,
        population=population_size(trials),
        attributes={STARTS: starts} if starts else None,
    )
    found: list[Floats] = []
    waiting: list[tuple[int, Floats]] = []
    known: set[str] = set()
    seconds: list[float] = []
    while len(found) < trials:
        refused = 0
        while len(waiting) < parallel and len(found) + len(waiting) < trials:
            begun = time.process_time()
            suggestion = study.ask()
            seconds.append(time.process_time() - begun)
            costs, key = table.costs_of(suggestion.chosen), json.dumps(suggestion.chosen, sort_keys=True)
            if key in known and refused < 20:
                # As the scheduler does: a repeated point is told at once and is no trial.
                study.tell(suggestion.ask, TrialResult(TrialState.COMPLETE, tuple(costs.tolist())))
                refused += 1
                continue
            known.add(key)
            waiting.append((suggestion.ask, costs))
        ask, costs = waiting.pop(0)
        study.tell(ask, TrialResult(TrialState.COMPLETE, tuple(costs.tolist())))
        found.append(costs)
    shares = {
        str(budget): hypervolume(np.array(found[:budget]), table.reference) / table.whole
        for budget in BUDGETS
        if budget <= trials
    }
    return {
        "seed": seed,
        "shares": {budget: round(share, 5) for budget, share in shares.items()},
        "ask_ms": round(1000 * float(np.mean(seconds)), 2),
        "last_asks_ms": round(1000 * float(np.mean(seconds[-20:])), 2),
        "slowest_ask_ms": round(1000 * max(seconds), 1),
    }


def cost(table: Table, space: Space, sampler: str, told: int, waiting: int) -> dict[str, Any]:
    """The processor time of suggestions with so many random points told, and others that run, of which one ends each
    time."""
    goals: list[Goal] = ["minimize", "minimize"]
    seed = 1
    drawn = OptunaStudy(space, goals, sampler="random", seed=seed, population=10)
    study = OptunaStudy(space, goals, sampler=sampler, seed=seed, population=population_size(told))
    ends: list[tuple[int, tuple[float, ...]]] = []
    for number in range(told + waiting):
        suggestion = study.ask(drawn.ask().chosen)
        ends.append((suggestion.ask, tuple(table.costs_of(suggestion.chosen).tolist())))
        if number < told:
            study.tell(suggestion.ask, TrialResult(TrialState.COMPLETE, ends[number][1]))
    del ends[:told]
    seconds: list[float] = []
    for _ in range(1 + COST_ASKS):
        begun = time.process_time()
        suggestion = study.ask()
        seconds.append(time.process_time() - begun)
        ends.append((suggestion.ask, tuple(table.costs_of(suggestion.chosen).tolist())))
        ask, values = ends.pop(0)
        study.tell(ask, TrialResult(TrialState.COMPLETE, values))
    milliseconds = {
        "first_ms": round(1000 * seconds[0]),
        "mean_ms": round(1000 * float(np.mean(seconds[1:])), 1),
        "slowest_ms": round(1000 * max(seconds[1:])),
    }
    return {"sampler": sampler, "told": told, "waiting": waiting, **milliseconds}


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each budget the mean with its 95 % interval, by the normal law."""
    told: dict[str, Any] = {}
    for budget in runs[0]["shares"]:
        shares = np.array([run["shares"][budget] for run in runs])
        half = 1.96 * float(shares.std(ddof=1)) / len(shares) ** 0.5 if len(shares) > 1 else None
        told[budget] = [round(float(shares.mean()), 4), None if half is None else round(half, 4)]
    return told


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", type=Path)
    arguments.add_argument("--samplers", nargs="+", default=["surrogate", "tpe", "nsga2", "random"])
    arguments.add_argument("--mappings", nargs="+", default=["agg", "model", "nn"], choices=["agg", "model", "nn"])
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--first-seed", type=int, default=0)
    arguments.add_argument("--trials", type=int, default=200)
    arguments.add_argument("--parallel", type=int, default=1)
    arguments.add_argument("--cost", nargs="*", default=[], metavar="TOLD:WAITING")
    arguments.add_argument("--best", type=Path)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    name = options.table.stem.split("_", 1)[1]
    best = json.loads(options.best.read_text())[name]["log"] if options.best else None
    results: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    for mapping in options.mappings:
        table = Table(options.table, mapping, best)
        space = parse_document(table.document(), find_dataset=lambda _: DATASET).space
        for sampler in options.samplers:
            runs: list[dict[str, Any]] = []
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                runs.append(search(table, space, sampler, seed, options.trials, options.parallel))
                print(mapping, sampler, runs[-1], flush=True)
            results.append(
                {
                    "mapping": mapping,
                    "sampler": sampler,
                    "seeds": len(runs),
                    "mean": summary(runs),
                    "last_asks_ms": round(float(np.mean([run["last_asks_ms"] for run in runs])), 1),
                    "runs": runs,
                }
            )
            print(mapping, sampler, results[-1]["mean"], flush=True)
        for pair in options.cost:
            told, waiting = map(int, pair.split(":"))
            costs += [cost(table, space, sampler, told, waiting) for sampler in options.samplers]
            print(costs[-len(options.samplers) :], flush=True)
    report = {
        "benchmark": "search",
        "command": "python -m benchmarks.performance.search "
        + " ".join(sys.argv[1:]).replace(str(options.table), "TABLE").replace(str(options.best), "BEST"),
        "machine": machine(),
        "parallel": options.parallel,
        "results": results,
        "costs": costs,
    }
    write(report, options.out)
    print(json.dumps({"results": [{key: each[key] for key in each if key != "runs"} for each in results]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
