"""Which trial is trained again: the unclear ones of those that could be on the front."""

from __future__ import annotations

import statistics

import pytest

from service.scheduling.replicates.means import squares_of, with_training
from service.scheduling.replicates.race import Contender, Race


def _contender(number: int, *costs: float, losses: int = 1, squares: float = 0.0, awaited: int = 0) -> Contender:
    return Contender(number, costs, losses, squares, awaited, losses - 1 + awaited)


def test_the_front_is_trained_twice_first_the_best_loss_first() -> None:
    race = Race(noisy=1, most=4)
    field = {"slow": _contender(0, 3.0, 1.0), "fast": _contender(1, 1.0, 2.0), "beaten": _contender(2, 3.0, 2.5)}
    assert race.next(field) == "slow"
    field["slow"] = _contender(0, 3.0, 1.0, awaited=1)
    assert race.next(field) == "fast"
    field["fast"] = _contender(1, 1.0, 2.0, awaited=1)
    assert race.next(field) is None, "how far seeds lie apart is not known before one has ended"


def test_the_rivals_whose_order_is_least_clear_are_next() -> None:
    race = Race(noisy=0, most=4)
    field = {
        "best": _contender(0, 1.00, losses=3, squares=0.02),
        "near": _contender(1, 1.05),
        "nearer": _contender(2, 1.01),
        "far": _contender(3, 9.0),
    }
    assert race.next(field) == "nearer"


def test_nothing_is_trained_again_where_the_order_is_known() -> None:
    field = {"best": _contender(0, 1.0, losses=3, squares=1e-6), "other": _contender(1, 2.0)}
    assert Race(noisy=0, most=4).next(field) is None


def test_a_slower_trial_with_a_worse_loss_is_a_rival_and_a_faster_one_is_none() -> None:
    race = Race(noisy=1, most=4)
    field = {
        "front": _contender(0, 2.0, 1.0, losses=3, squares=0.02),
        "slower": _contender(1, 3.0, 1.02),
        "faster": _contender(2, 1.0, 1.02, losses=2, squares=0.01),
    }
    assert race.next(field) == "slower"
    del field["slower"]
    assert race.next(field) == "faster", "whether it is the better one in both is not known"


def test_no_trial_is_trained_more_often_than_is_allowed() -> None:
    field = {
        "best": _contender(0, 1.0, losses=3, squares=0.5),
        "other": _contender(1, 1.1, losses=3, squares=0.5),
    }
    assert Race(noisy=0, most=2).next(field) is None
    assert Race(noisy=0, most=3).next(field) == "best"


def test_figures_are_means_and_the_error_is_that_of_the_mean() -> None:
    losses = [1.5, 1.2, 1.9, 1.6]
    metrics = {"validation_loss": losses[0], "latency_ms_p50": 3.0}
    for loss in losses[1:]:
        metrics = with_training(metrics, {"validation_loss": loss, "latency_ms_p50": 9.0})
    assert metrics["validation_loss"] == pytest.approx(statistics.fmean(losses))
    assert metrics["validation_loss_stderr"] == pytest.approx(statistics.stdev(losses) / 2)
    assert metrics["trainings"] == 4
    assert metrics["latency_ms_p50"] == 3.0
    assert squares_of(metrics) == pytest.approx(statistics.variance(losses) * 3)
