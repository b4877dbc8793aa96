"""How sure a recommendation is: noise of its measurements, seeds, how often the rule chooses the same trial again."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from layers.metrics import Goal, split_name
from service.common import formatting
from service.common.formatting import label
from service.recommendation.choice import LOSS, Candidate, Choice, NothingWithinError, choose, is_even
from service.recommendation.noise import LEAST_NATS, LEAST_SHARE
from service.recommendation.preferences import SelectionPreferences
from service.recommendation.schemas import Certainty

REPEATS = 200
MAX_CHOICES = 20_000
"""Trials looked at in all repeats together: a front of a thousand is repeated less often."""

Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class TimedFigure:
    """A timed metric, and the bounds of its 95 % interval. Noise slows, so the upper side may be much wider."""

    value: float
    low: float
    high: float
    processes: int

    @property
    def share_below(self) -> float:
        """How far it reaches below, relative to the value."""
        return (self.value - self.low) / self.value if self.value > 0 else 0.0

    @property
    def share_above(self) -> float:
        return (self.high - self.value) / self.value if self.value > 0 else 0.0

    @property
    def half_width_share(self) -> float:
        """The larger half, relative to the value."""
        return max(self.share_below, self.share_above)


@dataclass(frozen=True, slots=True)
class Noise:
    """What is known of the noise of the recommended trial's figures. None: not measured."""

    shape: str | None = None
    """At which shape a latency was measured that the noise of all shapes' is told by; None if there is one."""
    timed: Mapping[str, TimedFigure] = field(default_factory=dict[str, TimedFigure])
    """The timed metrics that the sweep decides by, else the latencies of its mode, if their intervals are known."""
    is_of_forward: bool = True
    """Whether a latency of the forward pass is among these metrics."""
    median: TimedFigure | None = None
    """Of the forward pass."""
    worker_half_width_share: float | None = None
    """Of the median's interval within a process, as a worker says it that says no interval."""
    latency_rebuilt_share: float | None = None
    front_rebuilt_shares: Sequence[float] = ()
    """The same of every trial of the front that has it: how far two builds of one model differ."""
    sampling_error_nats: float | None = None
    seed_spread_nats: float | None = None
    seeds: int = 1
    trainings: int = 1
    """How many the recommended trial's loss is the mean of."""
    is_confirmed: bool = False
    """The spread over seeds is that of a confirmation, not of the sweep's own further trainings."""
    is_confirmable: bool = True
    """Whether the data have a test split, on which a confirmation scores."""

    @property
    def latency_half_width_share(self) -> float | None:
        """The larger half of the median's interval, relative to it."""
        if self.median is None:
            return self.worker_half_width_share
        return self.median.half_width_share

    @property
    def latency_deviation_shares(self) -> tuple[float, float]:
        """Standard deviation of one latency over its value, below it and above: of two builds by their difference, or
        of the median."""
        if self.front_rebuilt_shares:
            squares = [share**2 for share in self.front_rebuilt_shares]
            both = math.sqrt(sum(squares) / len(squares) / 2)
            return both, both
        if self.median is None:
            both = (self.worker_half_width_share or 0.0) / Z95
            return both, both
        return self.median.share_below / Z95, self.median.share_above / Z95

    @property
    def loss_deviation_nats(self) -> float:
        """Of one training's validation loss: over seeds if that is known, else the split's sampling error."""
        return self.seed_spread_nats if self.seed_spread_nats is not None else self.sampling_error_nats or 0.0

    def deviation(self, metric: str, value: float, trainings: int = 1) -> float:
        """Standard deviation of a metric, in its unit; 0 for what is counted, not measured. A loss is the mean of so
        many trainings."""
        base, _ = split_name(metric)
        if _is_latency(base):
            return math.hypot(*self.latency_deviation_shares) / math.sqrt(2) * abs(value)
        if metric not in (LOSS, "reference_loss"):
            return 0.0
        return self.loss_deviation_nats / math.sqrt(trainings if self.seed_spread_nats is not None else 1)

    def drawn(self, metric: str, value: float, trainings: int, source: random.Random) -> float:
        """The metric with noise added, as another measurement may find it: each side of a latency as wide as it is."""
        normal = source.gauss(0.0, 1.0)
        base, _ = split_name(metric)
        if not _is_latency(base):
            return value + normal * self.deviation(metric, value, trainings)
        below, above = self.latency_deviation_shares
        if base == "throughput_per_s":
            below, above = above, below
        return max(0.0, value + normal * (above if normal > 0 else below) * abs(value))


def _is_latency(base: str) -> bool:
    return base.startswith("latency_ms") or base == "throughput_per_s"


EVEN = (
    "the front has two trials, each the best of one objective and equally near to the ideal point: the one with fewer "
    "parameters is taken, so say which objective matters more (--prefer or --weight; on the page, preferences)"
)


def uncertainty(
    choice: Choice,
    goals: Mapping[str, Goal],
    wishes: SelectionPreferences,
    noise: Noise,
    feasible: Sequence[Candidate],
    figures: Noise,
) -> Certainty:
    """`choice` is the rule's own, before the overfitting rule, with the `noise` that it is repeated with; `feasible`:
    what there was; `figures`: the noise of the recommended trial's."""
    chosen, front = choice.chosen, choice.front
    repeats = max(20, min(REPEATS, MAX_CHOICES // max(1, len(front))))
    noisy = any(noise.deviation(metric, 1.0) > 0 for metric in goals)
    # A baseline that one of them beats decides between them, and so does a limit.
    is_open = len({choice.beats_baseline(each) for each in front}) == 1 and len(choice.kept) == len(front)
    even = is_open and is_even(front, goals, wishes)
    share = _chosen_again(choice, goals, wishes, noise, repeats) if noisy and len(front) > 1 and not even else None
    return Certainty(
        latency_half_width_share=figures.latency_half_width_share,
        latency_rebuilt_share=figures.latency_rebuilt_share,
        validation_standard_error_nats=figures.sampling_error_nats,
        seeds=figures.seeds,
        seed_spread_nats=figures.seed_spread_nats,
        repeats_of_choice=repeats if share is not None else 0,
        chosen_again_share=share,
        says=[
            *says_of_figures(figures, chosen.metrics),
            *_says_of_choice(chosen, front, goals, feasible, share, repeats),
            *([EVEN] if even else []),
        ],
    )


def _chosen_again(
    choice: Choice,
    goals: Mapping[str, Goal],
    wishes: SelectionPreferences,
    noise: Noise,
    repeats: int,
) -> float:
    source = random.Random(0)
    again = 0
    for _ in range(repeats):
        drawn = [_drawn(candidate, goals, noise, source) for candidate in choice.front]
        try:
            other = choose(drawn, goals, wishes, choice.baseline_nats)
        except NothingWithinError:
            continue
        again += other is not None and other.chosen.id == choice.chosen.id
    return again / repeats


def _drawn(candidate: Candidate, goals: Mapping[str, Goal], noise: Noise, source: random.Random) -> Candidate:
    metrics = dict(candidate.metrics)
    for metric in goals:
        value = candidate.value(metric)
        metrics[metric] = noise.drawn(metric, value, candidate.trainings, source)
    return Candidate(candidate.id, candidate.number, metrics)


def says_of_figures(noise: Noise, metrics: Mapping[str, float]) -> list[str]:
    """How sure a trial's figures are, whatever it was chosen by."""
    return [*_says_of_noise(noise), *([_says_of_seeds(noise)] if LOSS in metrics else [])]


def _says_of_noise(noise: Noise) -> list[str]:
    says = [f"the {_spoken(name)} is {_known(name, figure)}" for name, figure in noise.timed.items()]
    if noise.is_of_forward:
        says += _says_of_forward(noise, is_said=bool(says))
    elif noise.timed:
        # Two builds are compared by the forward pass alone, which says nothing of a prompt and its answer.
        says.append(f"how far another build's {' and '.join(map(label, noise.timed))} would land is not known")
    if noise.sampling_error_nats is not None:
        says.append(f"the validation split is finite: standard error {_nats(noise.sampling_error_nats)}")
    return says


def _says_of_forward(noise: Noise, *, is_said: bool) -> list[str]:
    """Of the median latency, unless something was said of a latency, and of its builds."""
    says: list[str] = []
    if not is_said and noise.median is not None:
        says.append(f"the {_spoken('latency_ms_p50', noise.shape)} is {_known('latency_ms_p50', noise.median)}")
    elif not is_said and noise.worker_half_width_share is not None:
        width = max(noise.worker_half_width_share, LEAST_SHARE)
        known = f"known to within {width:.1%} (95 %, within one process)"
        says.append(f"the {_spoken('latency_ms_p50', noise.shape)} is {known}")
    if noise.latency_rebuilt_share is not None:
        differed = abs(noise.latency_rebuilt_share)
        by = f"{differed:.1%}" if differed >= LEAST_SHARE else f"less than {LEAST_SHARE:.1%}"
        says.append(f"built and measured twice in two processes, its p50 differed by {by}")
    elif noise.latency_half_width_share is not None:
        says.append("built once: how far the latency of another build lands is not known")
    return says


def _spoken(name: str, shape: str | None = None) -> str:
    """A timed metric as a sentence names it."""
    base, own_shape = split_name(name)
    if base != "latency_ms_p50":
        return label(name)
    at = own_shape or shape
    return "median latency" + ("" if at is None else f" at {at}")


def _known(name: str, figure: TimedFigure) -> str:
    """`between 0.474 ms and 3.88 ms (95 %, 1 process)`."""
    over = "1 process" if figure.processes == 1 else f"{figure.processes} processes"
    if figure.half_width_share < LEAST_SHARE:
        return f"known to within {LEAST_SHARE:.1%} (95 %, {over})"
    low, high = (formatting.metric(name, bound) for bound in (figure.low, figure.high))
    return f"between {low} and {high} (95 %, {over})"


def _says_of_seeds(noise: Noise) -> str:
    if noise.seed_spread_nats is None:
        how = (
            "confirm the sweep to measure it (layersweep confirm, or Confirm on its page)"
            if noise.is_confirmable
            else "search.replicates measures it; a confirmation needs data with a test split (dataset add --test 0.1)"
        )
        return f"one seed: how far another training of the same configuration lands is not known; {how}"
    if not noise.is_confirmed:
        own = noise.seed_spread_nats / math.sqrt(noise.trainings)
        mean = "a single training" if noise.trainings == 1 else f"the mean of {noise.trainings} trainings"
        return (
            f"its loss is {mean}, known to a standard error of {_nats(own)}: over further seeds losses of this sweep "
            f"spread by {_nats(noise.seed_spread_nats)} (standard deviation, pooled over the trials trained again)"
        )
    return (
        f"over the further seeds of its confirmation, losses spread by {_nats(noise.seed_spread_nats)} "
        "(standard deviation, pooled over the candidates)"
    )


def _nats(value: float) -> str:
    return f"{value:.4f} nats" if value >= LEAST_NATS else f"less than {LEAST_NATS:.4f} nats"


def _says_of_choice(
    chosen: Candidate,
    front: Sequence[Candidate],
    goals: Mapping[str, Goal],
    feasible: Sequence[Candidate],
    share: float | None,
    repeats: int,
) -> list[str]:
    """What there was to choose between, and how the rule chooses with noise added."""
    if len(feasible) > 1 and all(_is_same(feasible, metric) for metric in goals):
        return [f"no objective varies over the {len(feasible)} feasible trials: any is as good as this one"]
    says = [
        f"{label(metric)} does not vary over the {len(feasible)} feasible trials: it decides nothing"
        for metric in goals
        if len(feasible) > 1 and _is_same(feasible, metric)
    ]
    if len(front) == 1:
        says.append("the front has one trial: there is nothing to choose between")
    elif all(_is_same(front, metric) for metric in goals):
        says.append(f"the {len(front)} trials of the front are the same in every objective: any is as good as this one")
    elif share is not None:
        says.append(
            f"with noise of that size added to the {len(front)} trials of the front, the rule alone chooses trial "
            f"{chosen.number} in {share:.0%} of {repeats} repeats"
        )
    return says


def _is_same(candidates: Sequence[Candidate], metric: str) -> bool:
    return len({candidate.value(metric) for candidate in candidates}) == 1
