"""What pruning saves and loses: trainings that were run to their end, replayed over HTTP as workers report them.

    python -m benchmarks.performance.pruning [TABLE] --bounds [--seeds 20] [--out FILE]
    OMP_NUM_THREADS=1 python -m benchmarks.performance.pruning [TABLE] [--replays pareto asha] [--searches random:none
        auto:none auto:pareto] [--seeds 20] [--first-seed 0] [--trials 64] [--out benchmarks/results/pruning.json]

TABLE is that of `benchmarks.performance.training_curves`; latency and memory are those of its `measure` pass, or
without it the operations and parameters of the model. A real service, and one worker in this process.

Replays: every point of the table once, in the random sampler's order, with its own curve. What is pruned is known to
the end, so that what it would have brought is known, too: steps saved, hypervolume lost (in all objectives, from the
worst of the table and a tenth of its range; losses and costs by their logarithm), share of the table's front pruned.

Searches: SAMPLER:PRUNER over the space of the table, whose points end as their nearest row. How many steps, and
how much arithmetic, until the hypervolume is 99 % of what 64 random trials with the same seed reach.

Bounds: what a search could reach at best. Of 64 rows that are drawn with repetition, as points that fall to their
nearest row are, how many of the draws it took to 99 % of what all of them reach; and how few rows of the table reach
as much, for who knows it (one after the other, the one that adds most).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from benchmarks.performance.scheduling import REGISTRATION, Connection
from benchmarks.performance.training_curves import HARDWARE, TABLE, TrainingRow, architecture, document, read_table
from benchmarks.support.processes import machine, running_service
from benchmarks.support.report import write
from layersweep import Client
from layersweep.sweep import Sweep

Floats = NDArray[np.float64]
RATE = "training.learning_rate"
POINTS_LOG2 = 14
ENOUGH = 0.99


@dataclass(frozen=True, slots=True)
class Ending:
    """A trial that ended: what it would have come to, the share of its training that was taken, and whether that was
    all of it."""

    row: TrainingRow
    share: float
    is_complete: bool


class Table:
    """Trainings with what their models cost."""

    def __init__(self, path: Path) -> None:
        self.rows = [row for row in read_table(path) if row.seed == 0]
        place = path.with_name(HARDWARE)
        self._measured: Mapping[str, Any] = json.loads(place.read_text())["measured"] if place.exists() else {}
        self.is_measured = all(architecture(row.parameters) in self._measured for row in self.rows)
        names = ("latency_ms_p50", "memory_bytes") if self.is_measured else ("flops", "parameter_count")
        self.objectives = [*names, "validation_loss"]
        self._of_rate = {_rate(row): row for row in self.rows}
        costs = self.costs(self.rows)
        self._lowest, span = costs.min(axis=0), np.ptp(costs, axis=0)
        self._span = 1.1 * span
        self._points = qmc.Sobol(costs.shape[1], seed=0).random_base2(POINTS_LOG2)
        self._whole = self._volume(costs)

    def hardware(self, row: TrainingRow) -> dict[str, float]:
        """What is known before the training and is not the service's own to say."""
        if not self.is_measured:
            return {}
        return {name: float(self._measured[architecture(row.parameters)][name]) for name in self.objectives[:-1]}

    def costs(self, rows: Sequence[TrainingRow]) -> Floats:
        """The objectives of rows, by their logarithm."""
        return np.log(np.array([[self._value(row, name) for name in self.objectives] for row in rows]))

    def hypervolume(self, rows: Sequence[TrainingRow]) -> float:
        """The share of the table's own."""
        return self._volume(self.costs(rows)) / self._whole if rows else 0.0

    def front(self) -> set[int]:
        """The points that nothing dominates."""
        costs = self.costs(self.rows)
        return {
            row.point
            for row, at in zip(self.rows, costs, strict=True)
            if not ((costs <= at).all(axis=1) & (costs < at).any(axis=1)).any()
        }

    def of_rate(self, configuration: Mapping[str, Any]) -> TrainingRow:
        """The row with this learning rate: each has its own."""
        return self._of_rate[float(configuration["training"]["learning_rate"])]

    def nearest(self, configuration: Mapping[str, Any]) -> TrainingRow:
        """The row that differs in the fewest parameters, and then the least in its learning rate."""
        values = {**configuration["model"], RATE: configuration["training"]["learning_rate"]}

        def distance(row: TrainingRow) -> float:
            differing = sum(values[name] != value for name, value in row.parameters.items() if name != RATE)
            return differing + abs(math.log(float(row.parameters[RATE])) - math.log(values[RATE])) / math.log(8)

        return min(self.rows, key=distance)

    def _value(self, row: TrainingRow, name: str) -> float:
        return float(self.hardware(row).get(name, getattr(row, name, math.nan)))

    def _volume(self, costs: Floats) -> float:
        scaled = (costs - self._lowest) / self._span
        dominated = np.zeros(len(self._points), dtype=np.bool_)
        for at in scaled:
            dominated |= (at <= self._points).all(axis=1)
        return float(dominated.mean())

    def replayed(self) -> dict[str, Any]:
        """A document whose points are the rows: the learning rate is open, and says all else."""
        written = document(self.rows[0].steps)
        for name in self.rows[0].parameters:
            if name == RATE:
                _set(written, name, {"values": sorted(map(_rate, self.rows))})
            else:
                _set(written["model"], name, {"derived": self._derived(name)})
        return self._searched(written)

    def searched(self) -> dict[str, Any]:
        """The example's document."""
        return self._searched(document(self.rows[0].steps))

    def _searched(self, written: dict[str, Any]) -> dict[str, Any]:
        return written | {"objectives": [{"metric": name, "goal": "minimize"} for name in self.objectives]}

    def _derived(self, name: str) -> str:
        *others, last = sorted({row.parameters[name] for row in self.rows}, key=str)
        text = repr(last)
        for value in others:
            rates = ", ".join(repr(_rate(row)) for row in self.rows if row.parameters[name] == value)
            text = f"{value!r} if {RATE} in [{rates}] else {text}"
        return text


def _rate(row: TrainingRow) -> float:
    return round(float(row.parameters[RATE]), 9)


def _set(section: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        section = section.setdefault(parent, {})
    section[name] = value


class Worker:
    """Executes trials by the table: reports what was measured, the curve up to each rung, and the end."""

    def __init__(self, url: str, table: Table, row_of: Callable[[Mapping[str, Any]], TrainingRow]) -> None:
        self._connection, self._table, self._row_of = Connection(url), table, row_of
        status, registered = self._connection.post("/v1/workers", REGISTRATION)
        assert status == 201, registered
        self._worker = registered["id"]

    def work(self, sweep: Sweep) -> list[Ending]:
        """Execute trials until the sweep is over."""
        endings: list[Ending] = []
        while True:
            status, lease = self._connection.post("/v1/leases", {"worker": self._worker}, Prefer="wait=1")
            if status == 200:
                endings.append(self._execute(lease))
            elif sweep.refresh().state != "active":
                return endings

    def _execute(self, lease: Mapping[str, Any]) -> Ending:
        row = self._row_of(lease["configuration"])
        path, hardware = f"/v1/leases/{lease['trial']}/{lease['attempt']}", self._table.hardware(row)
        if hardware:
            self._post(f"{path}:report", {"phase": "measure", "metrics": hardware})
        self._post(f"{path}:report", {"phase": "train"})
        sent = 0
        for rung in [*lease["rungs"], row.steps]:
            losses = [point for point in _curve(row) if sent < point["step"] <= rung]
            answer = self._post(f"{path}:report", {"losses": losses})
            sent = rung
            if answer["action"] == "prune":
                body = {"outcome": "pruned", "reason": answer["reason"], "metrics": hardware}
                self._post(f"{path}:finish", body)
                return Ending(row, rung / row.steps, is_complete=False)
        metrics = {**hardware, "validation_loss": row.validation_loss}
        self._post(f"{path}:finish", {"outcome": "complete", "metrics": metrics})
        return Ending(row, 1.0, is_complete=True)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        status, answer = self._connection.post(path, body)
        assert status == 200, answer
        return answer


def _curve(row: TrainingRow) -> list[dict[str, Any]]:
    every = row.steps // len(row.validation_losses)
    validated = {every * (index + 1): loss for index, loss in enumerate(row.validation_losses)}
    trained = zip(row.training_steps, row.training_losses, strict=True)
    points: list[dict[str, Any]] = [{"step": step, "training_loss": loss} for step, loss in trained]
    for point in points:
        if point["step"] in validated:
            point["validation_loss"] = validated[point["step"]]
    return points


def replay(url: str, table: Table, pruner: str, seed: int) -> dict[str, Any]:
    """Every point of the table once."""
    written = table.replayed() | {
        "name": f"replay {pruner} {seed}",
        "budget": {"trials": len(table.rows), "parallel": 1},
        "search": {"sampler": "random", "seed": seed, "reuse": False, "pruner": pruner},
    }
    sweep = Client(url).submit(written)
    endings = Worker(url, table, table.of_rate).work(sweep)
    front = table.front()
    pruned = {ending.row.point for ending in endings if not ending.is_complete}
    record = Client(url).sweep(sweep.id).record
    return {
        "seed": seed,
        "trials": len(endings),
        "pruned": len(pruned),
        "steps_saved": 1 - sum(ending.share for ending in endings) / len(endings),
        "hypervolume_lost": 1 - table.hypervolume([ending.row for ending in endings if ending.is_complete]),
        "front_pruned": len(front & pruned) / len(front),
        "pruning": record.get("pruning"),
    }


def search(url: str, table: Table, sampler: str, pruner: str, seed: int, trials: int) -> list[Ending]:
    """A sweep over the table's space."""
    written = table.searched() | {
        "name": f"search {sampler} {pruner} {seed}",
        "budget": {"trials": trials, "parallel": 1},
        "search": {"sampler": sampler, "seed": seed, "reuse": False, "pruner": pruner},
    }
    return Worker(url, table, table.nearest).work(Client(url).submit(written))


def until(table: Table, endings: Sequence[Ending], enough: float) -> dict[str, float] | None:
    """Trainings (of whole budgets), their arithmetic and trials until a hypervolume; None where it is not reached."""
    done: list[TrainingRow] = []
    trainings = arithmetic = 0.0
    for number, ending in enumerate(endings, start=1):
        trainings += ending.share
        arithmetic += ending.share * ending.row.flops
        done += [ending.row] if ending.is_complete else []
        if table.hypervolume(done) >= enough:
            return {"trials": number, "trainings": trainings, "flops": arithmetic}
    return None


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", type=Path, nargs="?", default=TABLE)
    arguments.add_argument("--replays", nargs="*", default=["pareto", "asha"])
    arguments.add_argument("--searches", nargs="*", default=["random:none", "auto:none", "auto:pareto"])
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--first-seed", type=int, default=0)
    arguments.add_argument("--trials", type=int, default=64)
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--bounds", action="store_true", help="what is reachable at best, and nothing else")
    options = arguments.parse_args()
    table = Table(options.table)
    if options.bounds:
        found = [bounds(table, seed) for seed in range(options.seeds)]
        write(reported(options, table, {}, {}) | {"bounds": found}, options.out)
        print(json.dumps({name: float(np.median([each[name] for each in found])) for name in ("drawn", "known")}))
        return 0
    replays: dict[str, list[dict[str, Any]]] = {pruner: [] for pruner in options.replays}
    searches: dict[str, list[Any]] = {kind: [] for kind in options.searches}
    with tempfile.TemporaryDirectory() as folder, running_service(Path(folder)) as url:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for pruner, runs in replays.items():
                runs.append(replay(url, table, pruner, seed))
                print(pruner, runs[-1], flush=True)
            if searches:
                yardstick = search(url, table, "random", "none", seed, 64)
                enough = ENOUGH * table.hypervolume([ending.row for ending in yardstick])
                for kind, found in searches.items():
                    sampler, _, pruner = kind.partition(":")
                    is_yardstick = kind == "random:none"
                    endings = yardstick if is_yardstick else search(url, table, sampler, pruner, seed, options.trials)
                    found.append(until(table, endings, enough))
                    print(kind, seed, found[-1], flush=True)
            write(reported(options, table, replays, searches), options.out)
    print(json.dumps({"replays": summary(replays), "searches": searches}))
    return 0


def bounds(table: Table, seed: int) -> dict[str, Any]:
    """Trainings to enough for who draws rows, and for who knows the table."""
    drawn = [table.rows[index] for index in np.random.default_rng(seed).integers(0, len(table.rows), 64)]
    enough = ENOUGH * table.hypervolume(drawn)
    needed = next(count for count in range(1, 65) if table.hypervolume(drawn[:count]) >= enough)
    front = table.front()
    best = [row for row in table.rows if row.point in front]
    chosen: list[TrainingRow] = []
    while table.hypervolume(chosen) < enough:
        chosen.append(max(best, key=lambda row: table.hypervolume([*chosen, row])))
    return {"seed": seed, "hypervolume": round(enough, 4), "drawn": needed, "known": len(chosen)}


def reported(
    options: argparse.Namespace, table: Table, replays: Mapping[str, Any], searches: Mapping[str, Any]
) -> dict[str, Any]:
    """What the file has."""
    given = " ".join(sys.argv[1:]).replace(str(options.table), "TABLE")
    return {
        "benchmark": "pruning",
        "command": f"python -m benchmarks.performance.pruning {given}",
        "machine": machine(),
        "table": {"points": len(table.rows), "front": len(table.front()), "objectives": table.objectives},
        "means": summary(replays),
        "replays": replays,
        "searches": searches,
    }


def summary(replays: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The means over the seeds, of each pruner."""
    names = ("steps_saved", "hypervolume_lost", "front_pruned")
    return {
        pruner: {name: round(float(np.mean([run[name] for run in runs])), 5) for name in names}
        for pruner, runs in replays.items()
        if runs
    }


if __name__ == "__main__":
    sys.exit(main())
