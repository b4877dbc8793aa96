"""Predictions of final losses, the front that they are compared with, and what a curve shows at a rung."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.common.rungs import Shown, rung_steps, shown_at
from service.pruning.forecast import LEAST_FINISHED, forecast
from service.pruning.fronts import bound_of, goes_on


def trainings(count: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What trainings show, and where they end: a product of two columns, and noise."""
    source = np.random.default_rng(seed)
    seen = source.normal(size=(count, 3))
    return seen, 2 + seen[:, 0] + 0.5 * seen[:, 1] * seen[:, 2] + noise * source.normal(size=count)


def test_nothing_is_predicted_of_too_few_trainings() -> None:
    seen, ends = trainings(LEAST_FINISHED, 0.1)
    assert forecast(seen[:-1], ends[:-1], seen[-1]) is None
    assert forecast(seen, ends, seen[-1]) is not None


@pytest.mark.parametrize("finished", [12, 30, 80])
def test_what_is_said_to_be_unlikely_is(finished: int) -> None:
    below = 0
    for seed in range(200):
        seen, ends = trainings(finished + 1, 0.3, seed)
        expected = forecast(seen[:-1], ends[:-1], seen[-1])
        assert expected is not None
        below += expected.chance_below(float(ends[-1])) < 0.05
    assert below <= 0.08 * 200


def test_products_are_taken_where_they_foretell_better() -> None:
    seen, ends = trainings(60, 0.01)
    expected = forecast(seen[:-1], ends[:-1], seen[-1])
    assert expected is not None
    assert expected.mean == pytest.approx(float(ends[-1]), abs=0.1)
    assert expected.spread < 0.1


def test_trainings_that_all_show_the_same_are_predicted_by_their_ends() -> None:
    expected = forecast(np.ones((20, 3)), np.linspace(1, 2, 20), np.ones(3))
    assert expected is not None
    assert expected.mean == pytest.approx(1.5)
    assert expected.chance_below(0.5) < 0.01
    assert expected.chance_below(math.inf) == 1.0


def test_only_what_is_as_good_elsewhere_bounds_a_training() -> None:
    others, losses = np.array([[1.0, 5.0], [2.0, 2.0], [4.0, 1.0]]), np.array([3.0, 2.0, 1.0])
    assert bound_of(others, losses, np.array([2.0, 2.0])) == 2.0
    assert bound_of(others, losses, np.array([9.0, 9.0])) == 1.0
    assert bound_of(others, losses, np.array([0.5, 9.0])) == math.inf


def test_halving_keeps_the_best_third_by_ranks() -> None:
    dominated = [[float(cost), float(cost)] for cost in range(2, 8)]
    assert goes_on(np.array([*dominated, [1.0, 1.0]]))
    assert not goes_on(np.array([*dominated, [9.0, 9.0]]))
    front = [[1.0, 9.0], [9.0, 1.0], [5.0, 5.0]]
    assert not goes_on(np.array([*front, [5.1, 4.9]])), "of a front that is too large, the crowded ones go"


def test_a_curve_shows_its_last_validation_loss_or_recent_training_losses() -> None:
    curve = [(step, {"training_loss": 10.0 - step}) for step in range(1, 9)]
    assert rung_steps(90) == [10, 20, 30, 40, 60]
    assert rung_steps(None) == []
    assert shown_at(8, curve) == Shown("training_loss", 2.5)
    assert shown_at(8, [*curve[:4], (5, {"validation_loss": 4.0}), *curve[5:]]) == Shown("validation_loss", 4.0)
    assert shown_at(8, [(2, {"validation_loss": 4.0}), *curve[2:]]) == Shown("training_loss", 2.5), "it is too old"
    assert shown_at(3, [(4, {"training_loss": 1.0})]) is None
