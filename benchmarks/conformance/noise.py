"""How often is a trial near its limit judged wrongly, and how often not at all? By simulated noise of a known kind.

A constraint's limit is set at, and 2, 5 and 10 % to both sides of, what the latency truly is. Each repetition measures
by the worker's own loop on a clock that simulated runs cost, in further processes where the worker would, and is judged
by the service's own rule: most of them in this process (`--repetitions`), some by a worker over HTTP (`--over-http`),
whose verdicts have to be those of this process.

`wrong`: judged feasible where the limit is below the true latency, or infeasible where it is above, as a share of all;
at the limit itself either is right. `cannot`: not judged. `processes` and `seconds`: of a trial, on its own clock.
`before`: the same measurement judged by its figure alone, as it was until now.

    python -m benchmarks.conformance.noise [--repetitions 200] [--over-http 3] [--out FILE]

Exits with 1 where at a CV of 5 % more than 5 % are wrong beyond 2 % from the limit, or a verdict over HTTP is another.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from benchmarks.performance.scheduling import REGISTRATION
from benchmarks.support import report
from benchmarks.support.processes import machine, running_service
from benchmarks.support.simulated_noise import KINDS, Noise, measured
from layers.configuration import Configuration
from layers.expressions.constraints import parse_constraint
from service.common.noise import StoredFigure
from service.leases.feasibility import judge
from workers.trial.measuring.repeats import ProcessFigures, Repeats

CVS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
DISTANCES = (-0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1)
"""Of the limit from the true latency, relative to it; where it is negative, the trial is infeasible in truth."""
FIGURES = ("latency_ms_p50", "latency_ms_p99")
GOAL_CV, GOAL_DISTANCE, GOAL_WRONG = 0.05, 0.02, 0.05
NO_CONFIGURATION: Configuration = {"task": "", "model": {}, "training": {}, "inference": {}}

Verdict = str
"""feasible, infeasible or cannot"""


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial as its worker leaves it."""

    metrics: Mapping[str, float]
    noise: Mapping[str, StoredFigure]
    first: Mapping[str, float]
    """What the first process said."""
    processes: int
    seconds: float


class Processes:
    """The processes of one trial, each measured when it is first asked for."""

    def __init__(self, noise: Noise, figure: str, seed: int) -> None:
        self._noise, self._figures, self._seed = noise, ("latency_ms_p50", figure), seed
        self._found: list[tuple[ProcessFigures, float]] = []

    def __getitem__(self, index: int) -> tuple[ProcessFigures, float]:
        while len(self._found) <= index:
            random = np.random.default_rng([self._seed, len(self._found)])
            self._found.append(measured(self._noise, random, self._figures))
        return self._found[index]


def run_trial(processes: Processes, constraint: str) -> Trial:
    """What a worker does: measure, and again while that may decide."""
    first, seconds = processes[0]
    repeats, count = Repeats([parse_constraint(constraint)], {}, first, None), 1
    while repeats.are_wanted():
        found, more = processes[count]
        repeats.add(found)
        count, seconds = count + 1, seconds + more
    noise: dict[str, StoredFigure] = {name: {**each} for name, each in repeats.noise.items()}
    return Trial(repeats.metrics, noise, first.metrics, count, seconds)


def verdict_of(feasible: bool | None) -> Verdict:
    return "cannot" if feasible is None else "feasible" if feasible else "infeasible"


def is_wrong(verdict: Verdict, distance: float) -> bool:
    return distance != 0 and verdict == ("infeasible" if distance > 0 else "feasible")


def cells(repetitions: int) -> Iterator[dict[str, Any]]:
    """A row for each kind, CV, figure and distance."""
    for kind in KINDS:
        for cv in CVS:
            noise = Noise(kind, cv)
            for figure in FIGURES:
                trials = [Processes(noise, figure, seed) for seed in range(repetitions)]
                for distance in DISTANCES:
                    limit = noise.truth()[figure] * (1 + distance)
                    yield {"kind": kind, "cv": cv, "figure": figure, "distance": distance} | _judged(
                        trials, f"{figure} <= {limit:.9g}", distance
                    )


def _judged(trials: Sequence[Processes], constraint: str, distance: float) -> dict[str, float]:
    verdicts: Counter[Verdict] = Counter()
    before = 0
    processes, seconds = 0, 0.0
    for each in trials:
        trial = run_trial(each, constraint)
        verdicts[verdict_of(judge([constraint], NO_CONFIGURATION, trial.metrics, trial.noise).feasible)] += 1
        alone = judge([constraint], NO_CONFIGURATION, trial.first, {}).feasible
        before += is_wrong(verdict_of(alone), distance)
        processes, seconds = processes + trial.processes, seconds + trial.seconds
    count = len(trials)
    return {
        "wrong": sum(verdicts[each] for each in verdicts if is_wrong(each, distance)) / count,
        "cannot": verdicts["cannot"] / count,
        "feasible": verdicts["feasible"] / count,
        "before": before / count,
        "processes": round(processes / count, 2),
        "seconds": round(seconds / count, 2),
    }


# --- over HTTP --------------------------------------------------------------------------------------------------------


def over_http(repeats: int) -> dict[str, int]:
    """Simulated trials of a real service's sweeps, each with its verdict held against this process's."""
    counts: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as name,
        running_service(Path(name)) as url,
        httpx2.Client(base_url=url, timeout=120) as http,
    ):
        worker = _posted(http, "/v1/workers", REGISTRATION | {"name": "simulated"})["id"]
        for kind, cv, distance in itertools.product(KINDS, (0.05, 0.5), (-0.05, 0.0, 0.05)):
            counts += _swept(http, worker, Noise(kind, cv), distance, repeats)
    return dict(counts)


def _swept(http: httpx2.Client, worker: str, noise: Noise, distance: float, trials: int) -> Counter[str]:
    figure = "latency_ms_p99"
    constraint = f"{figure} <= {noise.truth()[figure] * (1 + distance):.9g}"
    sweep = _posted(http, "/v1/sweeps", _document(constraint, trials))["id"]
    counts: Counter[str] = Counter()
    for seed in range(trials):
        lease = _posted(http, "/v1/leases", {"worker": worker}, Prefer="wait=60")
        assert (lease["sweep"], lease["constraints"]) == (sweep, [constraint])
        assert figure in lease["metrics_in_use"]
        trial = run_trial(Processes(noise, figure, seed), constraint)
        body = {"outcome": "complete", "metrics": {**trial.metrics, "memory_bytes": 1e6}, "noise": trial.noise}
        said = _posted(http, f"/v1/leases/{lease['trial']}/{lease['attempt']}:finish", body)["feasible"]
        here = judge([constraint], NO_CONFIGURATION, trial.metrics, trial.noise).feasible
        counts["trials"] += 1
        counts[verdict_of(said)] += 1
        counts["differ"] += said is not here
    return counts


def _document(constraint: str, trials: int) -> dict[str, Any]:
    return {
        "name": "simulated noise",
        "task": "probe",
        "model": {
            "hidden_size": {"values": [32 * each for each in range(1, trials + 1)]},
            "attention": {"num_attention_heads": 2},
        },
        "inference": {"batch_size": 1, "sequence_length": 16},
        "objectives": [{"metric": "memory_bytes", "goal": "minimize"}],
        "constraints": [constraint],
        "budget": {"trials": trials},
        "search": {"sampler": "grid", "reuse": False},
    }


def _posted(http: httpx2.Client, path: str, body: Any, **headers: str) -> Any:
    answer = http.post(path, json=body, headers=headers)
    if answer.status_code >= 300 or not answer.content:
        raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:1000]}")
    return answer.json()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repetitions", type=int, default=200)
    arguments.add_argument("--over-http", type=int, default=3, help="trials of each of 24 sweeps; 0: none")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    for row in cells(options.repetitions):
        rows.append(row)
        print(json.dumps(row), flush=True)
    aimed = [row for row in rows if row["cv"] == GOAL_CV and abs(row["distance"]) >= GOAL_DISTANCE]
    worst = max(row["wrong"] for row in aimed)
    http = over_http(options.over_http) if options.over_http else {}
    found = {
        "command": f"python -m benchmarks.conformance.noise --repetitions {options.repetitions}",
        "machine": machine(),
        "goal": {"cv": GOAL_CV, "distance": GOAL_DISTANCE, "wrong_at_most": GOAL_WRONG, "found": worst},
        "over_http": http,
        "rows": rows,
    }
    report.write(found, options.out)
    print(json.dumps({name: value for name, value in found.items() if name != "rows"}))
    return 0 if worst <= GOAL_WRONG and not http.get("differ", 0) else 1


if __name__ == "__main__":
    sys.exit(main())
