"""What further trainings are worth: the regret of the recommended trial at equal numbers of trainings.

    python -m benchmarks.performance.replicates [TABLE] [--trainings 40 60 100] [--seeds 20] [--kept FILE]

TABLE is what `benchmarks.performance.training_curves train` keeps: trainings of random points of the quickstart, some
of them with three seeds. A replay draws points at random, without repetition, and trains each once; with replicates the
share that a sweep keeps goes to further seeds, asked for and worked in by the classes that a sweep is led with
(`service.scheduling.replicates`). Only points below the table's median of floating-point operations count: they stand
for those that keep a latency limit. The recommended trial is the one with the lowest (mean) loss.

A point's true loss is taken to be the mean of its trainings in the table. No seed beyond those that were measured was
trained: the loss of a training in a replay is that mean plus normal noise with the deviation that was measured of the
point, or, of a point that was trained once, with the deviation of a point that was trained three times, drawn at
random. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.support.processes import ROOT, machine
from layers.dataset_facts import DatasetDescription
from layers.space.document import SweepDocument, parse_document
from service.common.states import TrialState
from service.scheduling.replicates.replicates import KnownTrial, ReplicateHistory, Replicates
from service.scheduling.sweep_state import SweepEvent

TABLE = ROOT / "benchmarks" / "results" / "training-curves.jsonl"
KEPT = ROOT / "benchmarks" / "results" / "replicates.json"
LOSS = "validation_loss"


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the table: its mean loss in nats a token, and the deviation of one training."""

    mean: float
    deviation: float | None
    flops: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of all replays with so many trainings, in nats a token."""

    trainings: int
    replicates: str | int
    regret: float
    """Mean over the seeds: true loss of the recommended point less the lowest of the table."""
    median_regret: float
    optimism: float
    """Mean true loss of the recommended point less the figure that it was chosen by."""


def read_points(path: Path) -> list[Point]:
    """The points that stand for those below a latency limit."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    losses: dict[int, list[float]] = {}
    flops: dict[int, int] = {}
    for row in rows:
        losses.setdefault(row["point"], []).append(row[LOSS])
        flops[row["point"]] = row["flops"]
    limit = statistics.median(flops.values())
    return [
        Point(statistics.fmean(own), statistics.stdev(own) if len(own) > 1 else None, flops[point])
        for point, own in sorted(losses.items())
        if flops[point] <= limit
    ]


class Replay:
    """One sweep over the points of a table, with noise of its own."""

    def __init__(self, points: Sequence[Point], trainings: int, replicates: str | int, seed: int) -> None:
        self._source = random.Random(seed)
        measured = [point.deviation for point in points if point.deviation is not None]
        self._points = [
            point if point.deviation is not None else Point(point.mean, self._source.choice(measured), point.flops)
            for point in points
        ]
        self._order = self._source.sample(range(len(points)), len(points))
        self._left = trainings
        self._budget = trainings
        self._metrics: dict[str, dict[str, float]] = {}
        self._replicates = Replicates(_document(trainings, replicates), "random", ReplicateHistory())

    def run(self) -> tuple[float, float]:
        """The true loss of the recommended point, and the figure that it was chosen by."""
        self._try_points(self._left - self._replicates.share_left(self._budget))
        while self._left > 0:
            trial_id = self._replicates.next() if self._replicates.share_left(self._budget) > 0 else None
            if trial_id is not None:
                self._train_again(trial_id)
            elif not self._try_points(1):
                break
        best = min(self._metrics, key=lambda each: self._metrics[each][LOSS])
        return self._points[int(best)].mean, self._metrics[best][LOSS]

    def _try_points(self, count: int) -> bool:
        for point in self._order[:count]:
            self._left -= 1
            metrics = {LOSS: self._loss(point)}
            self._metrics[str(point)] = metrics
            self._replicates.add(str(point), KnownTrial(len(self._metrics), metrics, {}))
        tried, self._order = self._order[:count], self._order[count:]
        return bool(tried)

    def _train_again(self, trial_id: str) -> None:
        self._left -= 1
        replicate_id, _ = self._replicates.ask(trial_id)
        ended = SweepEvent(0, replicate_id, state=TrialState.COMPLETE, metrics={LOSS: self._loss(int(trial_id))})
        _, figures = self._replicates.tell(ended)
        if figures is not None:
            self._metrics[trial_id] = figures.metrics

    def _loss(self, point: int) -> float:
        return self._source.gauss(self._points[point].mean, self._points[point].deviation or 0.0)


_DATASET: DatasetDescription = {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 64}}


def _document(trainings: int, replicates: str | int) -> SweepDocument:
    return parse_document(
        {
            "name": "replay",
            "task": "causal_lm",
            "dataset": "replay",
            "model": {"num_layers": {"min": 1, "max": 4}, "hidden_size": 32, "attention": {"num_attention_heads": 2}},
            "training": {"steps": 10},
            "objectives": [{"metric": LOSS}],
            "budget": {"trials": trainings},
            "search": {"replicates": replicates},
        },
        find_dataset=lambda _: _DATASET,
    )


def replay(points: Sequence[Point], trainings: int, replicates: str | int, seeds: int) -> Outcome:
    """Of so many seeds."""
    best = min(point.mean for point in points)
    ended = [Replay(points, trainings, replicates, seed).run() for seed in range(seeds)]
    regrets = [true - best for true, _ in ended]
    return Outcome(
        trainings,
        replicates,
        statistics.fmean(regrets),
        statistics.median(regrets),
        statistics.fmean(true - shown for true, shown in ended),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="?", default=TABLE)
    parser.add_argument("--trainings", type=int, nargs="+", default=[40, 60, 100])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--kept", type=Path, default=KEPT)
    arguments = parser.parse_args()
    points = read_points(arguments.table)
    outcomes = [
        replay(points, trainings, replicates, arguments.seeds)
        for trainings in arguments.trainings
        for replicates in (0, "auto")
    ]
    for each in outcomes:
        print(
            f"{each.trainings:4} trainings, replicates {each.replicates!s:>4}: regret {each.regret:.4f} nats "
            f"(median {each.median_regret:.4f}), figure too good by {each.optimism:.4f}"
        )
    found = {
        "machine": machine(),
        "points": len(points),
        "seeds": arguments.seeds,
        "trained three times": sum(point.deviation is not None for point in points),
        "outcomes": [asdict(each) for each in outcomes],
    }
    arguments.kept.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
