"""How long slots stand idle while a sampler thinks: many slots, short trials, a clock that is simulated.

    OMP_NUM_THREADS=1 python -m benchmarks.performance.slots TABLE [--samplers surrogate nsga2 random] [--slots 1600]
        [--seconds 20] [--marks 500 5000] [--service-ms 3.4] [--seed 0] [--out benchmarks/results/slots.json]

TABLE is that of `benchmarks.performance.search` (mapping agg). Trials last `--seconds`, a tenth more or less. When one
ends, the scheduler tells the sampler and finds the next point, one trial after the other: with the product's own study
and proposals, in the processor time that this process needs for it, and --service-ms for all else that the service does
for a trial (measured: 1000 / 290, the random sampler's rate of `benchmarks.performance.scheduling`, 8 workers, SQLite).
Until then the slot stands idle. From each mark on, so many trials told, one trial a slot is watched: the share of the
slots' time that is idle, and what the slowest suggestion took. The share of the table's hypervolume is of what was told
at the mark. The first trials, one a slot, are asked for before the clock starts.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.performance.search import DATASET, Floats, Table, hypervolume
from benchmarks.support.processes import machine
from benchmarks.support.report import write
from layers.metrics import Goal
from layers.space.document import Space, parse_document
from service.common.states import TrialState
from service.scheduling.optuna_study import OptunaStudy
from service.scheduling.proposals import KnownPoint, Proposal, Proposals, SearchSpace
from service.scheduling.studies import TrialResult
from service.sweeps.sampling import population_size

SPREAD = 0.1


class Search:
    """A study with its proposals, and the costs of what it asks for."""

    def __init__(self, table: Table, space: Space, sampler: str, seed: int, trials: int) -> None:
        self._table = table
        goals: list[Goal] = ["minimize", "minimize"]
        population = population_size(trials)
        self._study = OptunaStudy(space, goals, sampler=sampler, seed=seed, population=population)
        self._known: dict[str, KnownPoint] = {}
        self._proposals = Proposals(SearchSpace(space), self._study, self._known, seed=seed)
        self.told: list[Floats] = []

    def next(self) -> Proposal:
        """A new point."""
        *_, asked = self._proposals.next()
        assert asked.point is not None, "the space is exhausted"
        self._known[asked.point.hash] = KnownPoint(len(self._known))
        return asked

    def costs_of(self, asked: Proposal) -> Floats:
        """What the table says of the point."""
        assert asked.point is not None
        return self._table.costs_of(asked.point.chosen)

    def end(self, asked: Proposal, costs: Floats) -> None:
        """Tell what became of it."""
        assert asked.point is not None
        result = TrialResult(TrialState.COMPLETE, tuple(costs.tolist()))
        self._study.tell(asked.suggestion.ask, result)
        self._known[asked.point.hash].result = result
        self.told.append(costs)


def simulate(
    table: Table, space: Space, sampler: str, seed: int, slots: int, seconds: float, marks: list[int], service: float
) -> list[dict[str, Any]]:
    """What each mark shows."""
    generator = random.Random(seed)
    search = Search(table, space, sampler, seed, marks[-1] + 2 * slots)

    def lasts() -> float:
        return seconds * generator.uniform(1 - SPREAD, 1 + SPREAD)

    # Slots that began together would end together: one began after the other.
    running = [(number / slots * seconds + SPREAD * lasts(), number, search.next()) for number in range(slots)]
    heapq.heapify(running)
    free = 0.0
    found: list[dict[str, Any]] = []
    for mark in marks:
        while len(search.told) < mark:
            free = _turn(search, running, free, lasts, service)[0]
        share = hypervolume(np.array(search.told), table.reference) / table.whole
        idle = busy = slowest = scheduling = 0.0
        for _ in range(slots):
            free, waited, lasted, took = _turn(search, running, free, lasts, service)
            idle, busy, scheduling, slowest = idle + waited, busy + lasted, scheduling + took, max(slowest, took)
        found.append(
            {
                "sampler": sampler,
                "told": mark,
                "idle_share": round(idle / (idle + busy), 5),
                "ms_a_trial": round(1000 * scheduling / slots, 2),
                "slowest_ms": round(1000 * slowest),
                "share": round(share, 4),
            }
        )
        print(found[-1], flush=True)
    return found


def _turn(search: Search, running: list[Any], free: float, lasts: Any, service: float) -> tuple[float, ...]:
    """The next trial ends and its slot gets another: when the scheduler is free again, and what the slot waited."""
    ended, number, asked = heapq.heappop(running)
    costs = search.costs_of(asked)
    began = time.process_time()
    search.end(asked, costs)
    following = search.next()
    took = time.process_time() - began
    free = max(ended, free) + took + service
    lasting = lasts()
    heapq.heappush(running, (free + lasting, number, following))
    return free, free - ended, lasting, took


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", type=Path)
    arguments.add_argument("--samplers", nargs="+", default=["surrogate", "nsga2", "random"])
    arguments.add_argument("--slots", type=int, default=1600)
    arguments.add_argument("--seconds", type=float, default=20)
    arguments.add_argument("--marks", type=int, nargs="+", default=[500, 5000])
    arguments.add_argument("--service-ms", type=float, default=3.4)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    table = Table(options.table, "agg", None)
    space = parse_document(table.document(), find_dataset=lambda _: DATASET).space
    results: list[dict[str, Any]] = []
    for sampler in options.samplers:
        service = options.service_ms / 1000
        results += simulate(
            table, space, sampler, options.seed, options.slots, options.seconds, sorted(options.marks), service
        )
    report = {
        "benchmark": "slots",
        "command": "python -m benchmarks.performance.slots "
        + " ".join(sys.argv[1:]).replace(str(options.table), "TABLE"),
        "machine": machine(),
        "slots": options.slots,
        "trial_seconds": options.seconds,
        "service_ms": options.service_ms,
        "results": results,
    }
    write(report, options.out)
    print(json.dumps({"results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
