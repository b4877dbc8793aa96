"""What further seeds and an unseen split say of a configuration: means, spreads, intervals and the choice's optimism.

Two things make a measured loss uncertain: the seed of the training, and the text that happens to be in the split.

- *Expected loss* of a configuration on text like the split: the mean over S seeds. Its interval joins the t interval
  over the seeds (half width t(S-1) s / sqrt(S)) and the sampling error of the split (z times the standard error by
  blocks of the seeds' mean loss) by the root of the sum of their squares: the two are independent.
- *One further training* on the same split: mean ± t(S-1) s sqrt(1 + 1/S), the prediction interval of a normal sample.

There is no interval below LEAST_SEEDS: of one seed the spread is unknown, and of two t(1) is 12.7, so that the interval
is some thirteen times as wide as they lie apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.recommendation.further_trainings import ScoredTraining
from service.recommendation.noise import CONFIDENCE, Blocks, difference_error, sampling_error

LEAST_SEEDS = 3
"""Seeds from which on there are intervals."""


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float

    @classmethod
    def around(cls, middle: float, half_width: float) -> Interval:
        return cls(middle - half_width, middle + half_width)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with what is known of its uncertainty."""

    mean: float
    spread: float | None
    """Standard deviation over seeds; None for one seed."""
    sampling_error: float | None
    expected: Interval | None
    """Where the expected loss on text like the split lies, at `CONFIDENCE`; None below LEAST_SEEDS."""
    one_more: Interval | None
    """Where one further training lands on the same split, at `CONFIDENCE`; None below LEAST_SEEDS."""


def estimate(losses: Sequence[float], blocks: Sequence[Blocks | None] = ()) -> Estimate:
    """Of at least one loss of one configuration; `blocks` are the same runs' sums along the split."""
    count, mean = len(losses), float(np.mean(losses))
    text = sampling_error(mean_blocks(blocks))
    spread = float(np.std(losses, ddof=1)) if count > 1 else None
    if spread is None or count < LEAST_SEEDS:
        return Estimate(mean, spread, text, None, None)
    t = quantile(count - 1)
    over_seeds, over_text = t * spread / math.sqrt(count), quantile(None) * (text or 0.0)
    return Estimate(
        mean=mean,
        spread=spread,
        sampling_error=text,
        expected=Interval.around(mean, math.hypot(over_seeds, over_text)),
        one_more=Interval.around(mean, t * spread * math.sqrt(1 + 1 / count)),
    )


def mean_blocks(blocks: Sequence[Blocks | None]) -> Blocks | None:
    """The mean over seeds of the losses along a split; None if one is missing or was cut otherwise."""
    known = [each for each in blocks if each is not None]
    if not known or len(known) < len(blocks):
        return None
    weights = known[0].weight_sums
    if any(not np.allclose(each.weight_sums, weights) for each in known if len(each.weight_sums) == len(weights)):
        return None
    if any(len(each.weight_sums) != len(weights) for each in known):
        return None
    losses = np.mean([each.loss_sums for each in known], axis=0)
    return Blocks(tuple(losses.tolist()), weights)


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean test loss of one configuration less another's, with its standard error (seeds, and text by blocks)."""

    nats: float
    standard_error: float | None

    @property
    def is_clear(self) -> bool:
        return self.standard_error is not None and abs(self.nats) > 2 * self.standard_error


def difference(one: Sequence[ScoredTraining], other: Sequence[ScoredTraining]) -> Difference:
    nats = float(np.mean([run.test_loss for run in one]) - np.mean([run.test_loss for run in other]))
    text = difference_error(
        mean_blocks([run.test_blocks for run in one]), mean_blocks([run.test_blocks for run in other])
    )
    variances = [
        float(np.var([run.test_loss for run in runs], ddof=1)) / len(runs) for runs in (one, other) if len(runs) > 1
    ]
    if text is None and not variances:
        return Difference(nats, None)
    return Difference(nats, math.sqrt(sum(variances) + (text or 0.0) ** 2))


def quantile(degrees: int | None) -> float:
    """The two-sided quantile at `CONFIDENCE`: of Student's t, or of the normal distribution for None."""
    level = 0.5 + CONFIDENCE / 2
    # Imported when it is asked for: SciPy's statistics would add a second to every start.
    from scipy import stats

    return float(stats.norm.ppf(level) if degrees is None else stats.t.ppf(level, degrees))
