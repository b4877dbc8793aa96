from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from service.confirmation.statistics import difference, estimate
from service.recommendation.further_trainings import ScoredTraining
from service.recommendation.noise import Blocks


def blocks(losses) -> Blocks:
    return Blocks(tuple(float(10 * loss) for loss in losses), (10.0,) * len(losses))


def test_the_intervals_are_those_of_student():
    losses = [1.50, 1.52, 1.57]
    found = estimate(losses)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(losses), scale=stats.sem(losses))
    assert (found.expected.low, found.expected.high) == pytest.approx((low, high))
    half = stats.t.ppf(0.975, 2) * np.std(losses, ddof=1) * np.sqrt(1 + 1 / 3)
    assert found.one_more.high - found.mean == pytest.approx(half)
    assert found.sampling_error is None


def test_the_sampling_error_of_the_split_widens_the_expected_interval_only():
    along = np.random.default_rng(0).normal(1.5, 0.2, 30)
    plain = estimate([1.49, 1.5, 1.51])
    found = estimate([1.49, 1.5, 1.51], [blocks(along)] * 3)
    assert found.sampling_error == pytest.approx(along.std(ddof=1) / np.sqrt(30))
    assert found.expected.low < plain.expected.low
    assert found.one_more == plain.one_more


def test_there_is_no_interval_of_fewer_than_three_seeds():
    one = estimate([1.5], [blocks([1.4, 1.6, 1.5])])
    assert (one.spread, one.expected, one.one_more) == (None, None, None)
    assert one.sampling_error > 0
    two = estimate([1.5, 1.6], [blocks([1.4, 1.6, 1.5])] * 2)
    assert two.spread == pytest.approx(0.0707, abs=1e-4)
    assert (two.expected, two.one_more) == (None, None)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_intervals_hold_what_they_say_as_often_as_they_say(seeds):
    """The expected loss of new seeds on new text, and one more training on the same text; both at 95 %."""
    source, held_expected, held_more, repeats = np.random.default_rng(seeds), 0, 0, 400
    for _ in range(repeats):
        text = source.normal(0, 0.1, 25)
        means = source.normal(2.0, 0.02, seeds)
        found = estimate([mean + text.mean() for mean in means], [blocks(mean + text) for mean in means])
        held_expected += 2.0 in found.expected
        held_more += (source.normal(2.0, 0.02) + text.mean()) in found.one_more
    assert held_expected / repeats > 0.92
    assert held_more / repeats > 0.92


def test_a_difference_is_clear_only_beyond_twice_its_error():
    hard = np.random.default_rng(1).normal(2.0, 0.4, 40)

    def runs(extra, spread):
        seeds = [extra + spread * sign for sign in (-1, 0, 1)]
        return [
            ScoredTraining(index, 0.0, float((hard + each).mean()), blocks(hard + each))
            for index, each in enumerate(seeds)
        ]

    assert difference(runs(0.05, 0.01), runs(0.0, 0.01)).is_clear
    assert not difference(runs(0.05, 0.1), runs(0.0, 0.1)).is_clear
    assert difference([ScoredTraining(1, 0.0, 1.0)], [ScoredTraining(1, 0.0, 1.1)]).standard_error is None
