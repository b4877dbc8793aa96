"""How well a sweep searches through the HTTP API: a real service, and workers whose trials end with a table's figures.

    OMP_NUM_THREADS=1 python -m benchmarks.performance.search_api TABLE [--mappings agg model nn] [--parallel 1 8]
        [--samplers auto] [--raw tpe nsga2 random] [--seeds 20] [--first-seed 0] [--trials 200]
        [--at-once 1] [--best model_front.json] [--out benchmarks/results/search-api.json]

TABLE, the mappings and the share are those of `benchmarks.performance.search`. Each sweep is the table's document with
the service's defaults but `reuse: false`; workers claim and finish over HTTP, in threads of this process. The sweeps of
`--at-once` seeds run at the same time, each with so many trials in flight as `parallel` says.
The raw samplers are Optuna's own with its defaults, asked and told in this process, with every parameter as it is
written: numbers that are listed as categories (tpe), or by their index (tpe-ordinal). Results of other seeds that the
file has are kept: the whole takes long.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy.stats import t as student

from benchmarks.performance.scheduling import REGISTRATION, Connection
from benchmarks.performance.search import BUDGETS, HEADS, RATIOS, Floats, Table, hypervolume
from benchmarks.support.processes import machine, running_service
from benchmarks.support.report import write
from layersweep import Client
from layersweep.sweep import Sweep

DATASET = "python-topics"
MOST_WORKERS = 16
"""Trials end at once here: more workers than that wait."""


@dataclass(frozen=True, slots=True)
class Search:
    """One sweep that is to be run, on the table of a mapping."""

    mapping: str
    sampler: str
    parallel: int
    seed: int


class Endings:
    """The costs of the trials of each sweep that have ended, in their order; several threads add to them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tables: dict[str, Table] = {}
        self.costs: dict[str, list[Floats]] = {}

    def expect(self, sweep: str, table: Table) -> None:
        """A sweep on a table, by its id: its trials may have been claimed already."""
        with self._changed:
            self._tables[sweep], self.costs[sweep] = table, []
            self._changed.notify_all()

    def end(self, sweep: str, model: Mapping[str, Any]) -> Floats:
        """What a trial of the sweep costs, from now on among those that have ended."""
        with self._changed:
            self._changed.wait_for(lambda: sweep in self._tables)
        costs = self._tables[sweep].costs_of(chosen_of(model))
        with self._changed:
            self.costs[sweep].append(costs)
        return costs


def work(url: str, endings: Endings, is_over: threading.Event) -> None:
    """Claim and finish until all sweeps are over."""
    connection = Connection(url)
    status, worker = connection.post("/v1/workers", REGISTRATION)
    assert status == 201, worker
    lease: dict[str, Any] | None = None
    while not is_over.is_set():
        if lease is None:
            status, answer = connection.post("/v1/leases", {"worker": worker["id"]}, Prefer="wait=1")
            if status != 200:
                continue
            lease = answer
        assert lease is not None
        # Before the service knows it: its next trial would be counted first.
        latency, loss = endings.end(lease["sweep"], lease["configuration"]["model"])
        metrics = {"latency_ms_p50": float(latency), "validation_loss": float(loss)}
        path = f"/v1/leases/{lease['trial']}/{lease['attempt']}:finish"
        status, answer = connection.post(path, {"outcome": "complete", "metrics": metrics, "claim": True})
        assert status == 200, answer
        lease = answer["lease"]


def chosen_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The table's parameters of a completed model: of each layer its own, or what all have."""
    layers = range(int(model["num_layers"]))
    own = {name.format(layer): name for name in (HEADS, RATIOS) for layer in layers}
    return dict(model) | {
        name: model.get(name, model.get(common.removeprefix("layers.{}."))) for name, common in own.items()
    }


def through_the_api(
    url: str, tables: Mapping[str, Table], searches: Sequence[Search], trials: int
) -> list[dict[str, Any]]:
    """Sweeps from their documents to their ends, all at once; one row each."""
    began = time.monotonic()
    client, endings, is_over = Client(url), Endings(), threading.Event()
    workers = min(MOST_WORKERS, sum(search.parallel for search in searches))
    threads = [threading.Thread(target=work, args=(url, endings, is_over)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    sweeps: list[Sweep] = []
    try:
        for search in searches:
            table = tables[search.mapping]
            written = table.document() | {
                "name": f"{search.mapping}, parallel {search.parallel}, seed {search.seed}",
                "dataset": DATASET,
                "budget": {"trials": trials, "parallel": search.parallel},
                "search": {"sampler": search.sampler, "seed": search.seed, "reuse": False},
            }
            sweeps.append(client.submit(written))
            endings.expect(sweeps[-1].id, table)
        for sweep in sweeps:
            sweep.wait()
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    return [
        row_of(
            search,
            sampler=sweep.record["sampler"],
            shares=shares(tables[search.mapping], endings.costs[sweep.id]),
            seconds_of_all=round(time.monotonic() - began, 1),
        )
        for search, sweep in zip(searches, sweeps, strict=True)
    ]


def row_of(search: Search, **found: Any) -> dict[str, Any]:
    """One run as the file has it."""
    return {
        "mapping": search.mapping,
        "sampler": search.sampler,
        "parallel": search.parallel,
        "runs": [{"seed": search.seed, **found}],
    }


def raw_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """One of Optuna's own, with its defaults."""
    if name.startswith("tpe"):
        return optuna.samplers.TPESampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def raw(table: Table, name: str, seed: int, trials: int) -> dict[str, float]:
    """The shares that one of Optuna's samplers alone finds."""
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=raw_sampler(name, seed))
    model = table.document()["model"]
    costs: list[Floats] = []
    for _ in range(trials):
        trial = study.ask()

        def suggest(parameter: str, written: Mapping[str, Any], trial: optuna.Trial = trial) -> Any:
            values = written["values"]
            if name == "tpe-ordinal":
                return values[trial.suggest_int(parameter, 0, len(values) - 1)]
            return trial.suggest_categorical(parameter, values)

        chosen: dict[str, Any] = {
            "num_layers": suggest("num_layers", model["num_layers"]),
            "hidden_size": suggest("hidden_size", model["hidden_size"]),
            "attention.bias": suggest("attention.bias", model["attention"]["bias"]),
        }
        for layer in range(chosen["num_layers"]):
            heads, ratio = HEADS.format(layer), RATIOS.format(layer)
            chosen[heads] = suggest(heads, model["attention"]["num_attention_heads"])
            chosen[ratio] = suggest(ratio, model["mlp"]["ffn_hidden_size"])
        costs.append(table.costs_of(chosen))
        study.tell(trial, costs[-1].tolist())
    return shares(table, costs)


def shares(table: Table, costs: Sequence[Floats]) -> dict[str, float]:
    """The share of the table's hypervolume after each budget."""
    return {
        str(budget): round(hypervolume(np.array(costs[:budget]), table.reference) / table.whole, 5)
        for budget in BUDGETS
        if budget <= len(costs)
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", type=Path)
    arguments.add_argument("--mappings", nargs="+", default=["agg", "model", "nn"], choices=["agg", "model", "nn"])
    arguments.add_argument("--parallel", type=int, nargs="+", default=[1, 8])
    arguments.add_argument("--samplers", nargs="*", default=["auto"])
    arguments.add_argument("--raw", nargs="*", default=["tpe", "tpe-ordinal", "nsga2", "random"])
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--first-seed", type=int, default=0)
    arguments.add_argument("--at-once", type=int, default=1, help="seeds whose sweeps run at the same time")
    arguments.add_argument("--trials", type=int, default=200)
    arguments.add_argument("--best", type=Path)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = options.table.stem.split("_", 1)[1]
    best = json.loads(options.best.read_text())[name]["log"] if options.best else None
    tables = {mapping: Table(options.table, mapping, best) for mapping in options.mappings}
    known = json.loads(options.out.read_text())["results"] if options.out and options.out.exists() else []
    with tempfile.TemporaryDirectory() as folder, running_service(Path(folder)) as url:
        last = options.first_seed + options.seeds
        for first in range(options.first_seed, last, options.at_once):
            seeds = range(first, min(first + options.at_once, last))
            kinds = itertools.product(seeds, tables, options.samplers, options.parallel)
            searches = [Search(mapping, sampler, parallel, seed) for seed, mapping, sampler, parallel in kinds]
            rows = through_the_api(url, tables, searches, options.trials)
            for seed, (mapping, table), sampler in itertools.product(seeds, tables.items(), options.raw):
                search = Search(mapping, f"Optuna's {sampler}", 1, seed)
                rows.append(row_of(search, shares=raw(table, sampler, seed, options.trials)))
            print(*rows, sep="\n", flush=True)
            known = merged(known, rows)
            # Again and again: the whole takes long.
            write(reported(options, known), options.out)
    print(json.dumps([{key: row[key] for key in row if key != "runs"} for row in known]))
    return 0


def reported(options: argparse.Namespace, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the file has."""
    given = " ".join(sys.argv[1:]).replace(str(options.table), "TABLE").replace(str(options.best), "BEST")
    command = f"python -m benchmarks.performance.search_api {given}"
    return {"benchmark": "search_api", "command": command, "machine": machine(), "results": results}


def means(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each budget the mean with its 95 % interval, by Student's law: there may be few seeds."""
    told: dict[str, Any] = {}
    for budget in runs[0]["shares"]:
        found = np.array([run["shares"][budget] for run in runs])
        half = None
        if len(found) > 1:
            half = round(float(student.ppf(0.975, len(found) - 1) * found.std(ddof=1)) / len(found) ** 0.5, 4)
        told[budget] = [round(float(found.mean()), 4), half]
    return told


def merged(known: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was measured before and now: of each kind every seed once, the newer one."""
    kinds: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = {}
    for row in [*known, *new]:
        seeds = kinds.setdefault((row["mapping"], row["sampler"], row["parallel"]), {})
        seeds.update({run["seed"]: run for run in row["runs"]})
    return [
        {
            "mapping": mapping,
            "sampler": sampler,
            "parallel": parallel,
            "seeds": len(runs),
            "mean": means(list(runs.values())),
            "runs": list(runs.values()),
        }
        for (mapping, sampler, parallel), runs in kinds.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
