"""How often `layersweep sweep assert` is wrong: alarms where nothing has changed, slowdowns that it misses.

    python -m benchmarks.performance.gate [--builds 25] [--gates 1000] [--out benchmarks/results/gate.json]

First a service and a worker measure one configuration anew in 2 N builds, in turns as two sweeps: how builds differ on
this machine. Then gates are drawn from what was measured, by the product's own loop and judgement, with the limit
`latency_ms_p50 <= 1.02 * baseline`. `A/A`: both sides are drawn alike; `5 %`: one side is slower by so much.

- `file`: the baseline's builds are drawn from the first half of the time, those of now from the second.
- `in turns`: from all of the time, as --against measures.
- `normal`, `bimodal`: no measurement, but builds that differ by a known coefficient of variation; of `bimodal`, one in
  ten is 5 % slower than the others, as an H100 showed (benchmarks/results/repeatability-h100-6-layers.json).

The last line is JSON: of each the shares of gates that were kept, broken and undecided, and the builds that they took.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.support.processes import machine, running_service, running_worker
from benchmarks.support.report import write
from layers.expressions.metric_names import MetricNames
from layersweep import Client
from layersweep.gates import Gate
from layersweep.records.assertions import Judgement
from layersweep.sweep import Sweep
from service.assertions.judgement import excess_of, verdict_of
from service.assertions.limits import read
from service.assertions.rank_intervals import RankInterval, Risks

METRIC = "latency_ms_p50"
LIMIT = f"{METRIC} <= 1.02 * baseline"
SLOWDOWN = 1.05
DOCUMENT = {
    "name": "gate",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {"num_layers": 2, "hidden_size": 128, "attention": {"num_attention_heads": 4}},
    "training": {"steps": 1, "batch_size": 1},
    "inference": {"batch_size": 1, "sequence_length": 64},
    "objectives": [{"metric": METRIC}],
    "budget": {"trials": 1},
}
Floats = NDArray[np.float64]
Draw = Callable[[int], Floats]
"""So many builds of one side."""

limit = read([LIMIT], MetricNames())[0]


class Drawn:
    """A sweep of builds that are drawn, as a gate sees it. Those of the baseline are drawn when they are needed."""

    state = "completed"

    def __init__(self, side: Draw, builds: int) -> None:
        self.record = {"progress": {"complete": builds}, "reason": None}
        self.id, self._side, self.values = "", side, side(builds)

    def wait(self, timeout_seconds: float | None = None, on_progress: object = None) -> None: ...

    def extend(self, *, trials: int) -> None:
        self.values = np.concatenate([self.values, self._side(trials)])

    def judged(self, baseline: Floats, risks: Risks) -> Judgement:
        builds = [{METRIC: float(value)} for value in self.values]
        excess = excess_of(limit, builds, baseline.tolist(), risks)
        verdict = verdict_of(RankInterval(excess.estimate, excess.low, excess.high))
        return cast("Judgement", {"verdict": verdict, "builds": len(builds)})


class Now(Drawn):
    """The side that is judged, against a baseline that is kept or drawn in turns."""

    def __init__(self, side: Draw, builds: int, baseline: Callable[[], Floats]) -> None:
        super().__init__(side, builds)
        self._baseline = baseline

    def judge(self, limits: Sequence[str], *, risk_of_alarm: float, risk_of_miss: float, **_: object) -> Judgement:
        return self.judged(self._baseline(), (risk_of_alarm, risk_of_miss))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--builds", type=int, default=25, help="of each of the two sides")
    arguments.add_argument("--gates", type=int, default=1000, help="drawn of each situation")
    arguments.add_argument("--measured", type=Path, help="a report whose builds are taken instead of new ones")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    if options.measured:
        earlier = json.loads(options.measured.read_text())
        target, sides = earlier["target"], earlier["builds"]
    else:
        target, sides = measure(options.builds)
    generator = np.random.default_rng(0)
    found = {
        name: {
            change: gates(now, before, factor, options.gates, in_turns=in_turns)
            for change, factor in (("A/A", 1.0), ("5 %", SLOWDOWN))
        }
        for name, (now, before, in_turns) in situations(sides, generator).items()
    }
    report = {
        "benchmark": "gate",
        "command": "python -m benchmarks.performance.gate " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "target": target,
        "limit": LIMIT,
        "gates": options.gates,
        "builds": sides,
        "spread": [spread(side) for side in sides],
        "found": found,
    }
    write(report, options.out)
    print(json.dumps({"spread": report["spread"], "found": found}))
    return 0


def measure(builds: int) -> tuple[str, list[list[float]]]:
    """The target, and the builds of two sides that were measured in turns."""
    with tempfile.TemporaryDirectory() as name, running_service(Path(name)) as url, running_worker(url, Path(name)):
        client = Client(url)
        sweep = client.submit(DOCUMENT).wait()
        sides = [sweep.remeasure([LIMIT], 0, builds=1).wait() for _ in range(2)]
        for _ in range(builds - 1):
            for side in sides:
                side.extend(trials=1).wait()
            print(len(list(sides[0].trials())), flush=True)
        return str(sweep.refresh().record["target"]), [
            [float(trial["metrics"][METRIC]) for trial in side.trials(state="complete")] for side in sides
        ]


def situations(sides: Sequence[Sequence[float]], generator: np.random.Generator) -> dict[str, tuple[Draw, Draw, bool]]:
    """What the builds of now and of the baseline are drawn from, and whether in turns."""
    in_time = np.array(sides).T.ravel()
    early, late = np.split(in_time, 2)

    def of(values: Floats) -> Draw:
        return lambda count: generator.choice(values, count)

    def normal(cv: float) -> Draw:
        return lambda count: 1 + cv * generator.standard_normal(count)

    def bimodal(count: int) -> Floats:
        return (1 + 0.002 * generator.standard_normal(count)) * np.where(generator.random(count) < 0.1, 1.05, 1.0)

    known = {f"normal, CV {cv:.1%}": (normal(cv), normal(cv), False) for cv in (0.005, 0.01, 0.02, 0.03, 0.05)}
    return {
        "file": (of(late), of(early), False),
        "in turns": (of(in_time), of(in_time), True),
        **known,
        "bimodal": (bimodal, bimodal, False),
    }


def gates(now: Draw, before: Draw, factor: float, count: int, *, in_turns: bool) -> dict[str, float]:
    """The verdicts of so many gates, in shares, and the mean number of builds."""
    verdicts = [_gate(lambda builds: factor * now(builds), before, in_turns=in_turns) for _ in range(count)]
    shares = {
        verdict: sum(found["verdict"] == verdict for found in verdicts) / count
        for verdict in ("kept", "broken", "undecided")
    }
    return {**shares, "builds": float(np.mean([found["builds"] for found in verdicts]))}


def _gate(now: Draw, before: Draw, *, in_turns: bool) -> Judgement:
    gate = Gate([LIMIT])
    if in_turns:
        other = Drawn(before, 1)
        return gate.judge_sweeps([_as_sweep(Now(now, 1, lambda: other.values)), _as_sweep(other)], builds=1)
    written = before(gate.most_builds)
    first = gate.counts()[0]
    return gate.judge_sweeps([_as_sweep(Now(now, first, lambda: written))], builds=first)


def _as_sweep(drawn: Drawn) -> Sweep:
    return cast("Sweep", drawn)


def spread(values: Sequence[float]) -> dict[str, Any]:
    found = np.array(values)
    return {
        "median_ms": float(np.median(found)),
        "cv": float(found.std(ddof=1) / found.mean()),
        "max_over_min": float(found.max() / found.min()),
        "half_to_half": float(np.median(found[len(found) // 2 :]) / np.median(found[: len(found) // 2])),
    }


if __name__ == "__main__":
    sys.exit(main())
