"""The surrogate sampler as a user of Optuna has it: conditions, constraints, restarts, several objectives."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from service.scheduling.surrogate import ahead
from service.scheduling.surrogate.sampler import SurrogateSampler
from service.scheduling.surrogate.space import SearchSpace

LAYERS = 8
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "depth": IntDistribution(2, LAYERS),
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "kind": CategoricalDistribution(["plain", "gated"]),
    "gate": FloatDistribution(0.0, 1.0),
    **{f"layers.{layer}.width": IntDistribution(0, 4) for layer in range(LAYERS)},
}


def present(values: Mapping[str, Any]) -> Collection[str]:
    layers = [f"layers.{layer}.width" for layer in range(values["depth"])]
    return ["depth", "rate", "kind", *(["gate"] if values["kind"] == "gated" else []), *layers]


SPACE = SearchSpace(DISTRIBUTIONS, present, ("depth", "kind"))


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """Ask parameter by parameter, conditions in order."""
    values: dict[str, Any] = {"depth": trial.suggest_int("depth", 2, LAYERS)}
    values["rate"] = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    values["kind"] = trial.suggest_categorical("kind", ["plain", "gated"])
    if values["kind"] == "gated":
        values["gate"] = trial.suggest_float("gate", 0.0, 1.0)
    for layer in range(values["depth"]):
        values[f"layers.{layer}.width"] = trial.suggest_int(f"layers.{layer}.width", 0, 4)
    return values


def costs_of(values: Mapping[str, Any]) -> tuple[float, float]:
    """A time that grows with all layers, and a loss that falls with them; a good gate and rate are worth a lot."""
    widths = [1 + width for name, width in values.items() if name.startswith("layers.")]
    gate = 0.3 * abs(values["gate"] - 0.7) - 0.15 if "gate" in values else 0.0
    loss = 1.5 + 3.0 / math.sqrt(sum(widths)) + 0.1 * (math.log10(values["rate"]) + 3) ** 2 + gate
    return 0.5 + 0.2 * sum(widths) + 0.3 * len(widths), loss


def run(study: optuna.Study, trials: int) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []
    for _ in range(trials):
        trial = study.ask()
        values = suggest(trial)
        asked.append(values)
        time, loss = costs_of(values)
        trial.set_constraint("time", time - 7.0)
        study.tell(trial, (time, loss))
    return asked


def area(asked: Collection[Mapping[str, Any]]) -> float:
    """What of the box up to (7, 5) the feasible ones dominate."""
    total, lowest = 0.0, 5.0
    for time, loss in sorted(map(costs_of, asked)):
        if loss < lowest and time <= 7.0:
            total += (7.0 - time) * (lowest - loss)
            lowest = loss
    return total


def new_study(sampler: BaseSampler, directions: Collection[str] = ("minimize", "minimize")) -> optuna.Study:
    return optuna.create_study(directions=list(directions), sampler=sampler)


def test_it_finds_more_than_random_search_under_a_constraint_and_conditions() -> None:
    random = [area(run(new_study(RandomSampler(seed=seed)), 40)) for seed in range(3)]
    found = [area(run(new_study(SurrogateSampler(SPACE, seed=seed)), 40)) for seed in range(3)]
    assert min(found) > max(random)


def test_it_learns_where_a_constraint_is_broken() -> None:
    asked = run(new_study(SurrogateSampler(SPACE, seed=1)), 40)
    broken = [costs_of(values)[0] > 7.0 for values in asked]
    assert sum(broken[20:]) < sum(broken[:20])


def test_no_point_is_asked_twice_while_others_are_left() -> None:
    distributions: dict[str, BaseDistribution] = {"a": IntDistribution(0, 4), "b": CategoricalDistribution(["x", "y"])}
    study = new_study(SurrogateSampler(SearchSpace(distributions), seed=0), ["minimize"])
    seen: set[tuple[Any, ...]] = set()
    for _ in range(10):
        trial = study.ask()
        point = (trial.suggest_int("a", 0, 4), trial.suggest_categorical("b", ["x", "y"]))
        study.tell(trial, float(point[0]))
        seen.add(point)
    assert len(seen) == 10
    again = study.ask()
    assert 0 <= again.suggest_int("a", 0, 4) <= 4


def test_a_study_that_is_read_back_goes_on_identically() -> None:
    uninterrupted = run(new_study(SurrogateSampler(SPACE, seed=5)), 24)
    before = new_study(SurrogateSampler(SPACE, seed=5))
    first = run(before, 17)
    after = new_study(SurrogateSampler(SPACE, seed=5))
    after.add_trials(before.trials)
    assert first + run(after, 7) == uninterrupted


def test_the_seed_decides() -> None:
    one, other = (run(new_study(SurrogateSampler(SPACE, seed=seed)), 12) for seed in (1, 2))
    assert one != other


def test_trials_that_run_are_not_asked_for_again_and_move_the_next_ones_away() -> None:
    study = new_study(SurrogateSampler(SPACE, seed=3))
    run(study, 15)
    running = [suggest(study.ask()) for _ in range(6)]
    assert len({str(values) for values in running}) == 6
    times = [costs_of(values)[0] for values in running]
    assert max(times) > 1.1 * min(times), "they lie at one end of the front"


def test_a_point_that_is_not_allowed_is_never_asked() -> None:
    def allowed(values: Mapping[str, Any]) -> bool:
        return values["depth"] % 2 == 0

    study = new_study(SurrogateSampler(SearchSpace(DISTRIBUTIONS, present, ("depth", "kind"), allowed), seed=0))
    assert {values["depth"] % 2 for values in run(study, 20)} == {0}


def test_pruned_and_failed_trials_are_no_obstacle() -> None:
    study = new_study(SurrogateSampler(SPACE, seed=0))
    for number in range(25):
        trial = study.ask()
        values = suggest(trial)
        if values["rate"] > 1e-2:
            study.tell(trial, state=TrialState.PRUNED)
        elif number % 6 == 0:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, costs_of(values))
    states = [trial.state for trial in study.trials]
    assert states[15:].count(TrialState.PRUNED) <= 2, "what is stopped early is avoided"


@pytest.mark.parametrize("told", [lambda trial: None, lambda trial: trial.set_constraint("c", 1.0)])
def test_a_search_without_any_feasible_trial_goes_on(told: Callable[[optuna.Trial], None]) -> None:
    study = new_study(SurrogateSampler(SPACE, seed=0))
    for _ in range(14):
        trial = study.ask()
        suggest(trial)
        told(trial)
        study.tell(trial, state=TrialState.PRUNED)
    assert len({str(trial.params) for trial in study.trials}) == 14


@pytest.mark.parametrize("directions", [("maximize",), ("minimize", "maximize", "minimize"), ("minimize",) * 4])
def test_one_three_and_four_objectives_of_either_direction(directions: tuple[str, ...]) -> None:
    study = new_study(SurrogateSampler(seed=0), directions)
    for _ in range(26):
        trial = study.ask()
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        bowls = [(x - 0.1 * index) ** 2 + (y - 0.9) ** 2 for index in range(len(directions))]
        values = [-bowl if goal == "maximize" else bowl for bowl, goal in zip(bowls, directions, strict=True)]
        study.tell(trial, values)
    best = np.array([trial.params["y"] for trial in study.trials[-8:]])
    assert np.median(np.abs(best - 0.9)) < 0.15


def test_an_objective_may_turn_negative_or_stay_the_same() -> None:
    study = new_study(SurrogateSampler(SPACE, seed=0))
    for number in range(24):
        trial = study.ask()
        time, _ = costs_of(suggest(trial))
        study.tell(trial, (1e-12 if number < 14 else -time, 3.0))
    assert len({str(trial.params) for trial in study.trials}) == 24


@pytest.mark.parametrize("ended_for_one_more", [1_000, 3], ids=["by what runs", "by what has ended"])
def test_a_rebuilt_study_asks_the_same_while_trials_run_and_end_in_any_order(
    monkeypatch: pytest.MonkeyPatch, ended_for_one_more: int
) -> None:
    """A restart comes amid points that were chosen together, too."""
    monkeypatch.setattr(ahead, "_OF_KNOWN", ended_for_one_more)

    def ask_on(*, rebuilds: bool) -> list[dict[str, Any]]:
        study = new_study(SurrogateSampler(SPACE, seed=2))
        asked: list[dict[str, Any]] = []
        running: list[optuna.Trial] = []
        for number in range(30):
            if rebuilds and number % 4 == 3:
                study.sampler = SurrogateSampler(SPACE, seed=2)
            running.append(study.ask())
            asked.append(suggest(running[-1]))
            if len(running) == 5:
                # The first one takes very long.
                ended = running.pop(1 + number % 4)
                study.tell(ended, costs_of(ended.params))
        return asked

    assert ask_on(rebuilds=True) == ask_on(rebuilds=False)


def test_while_trials_run_one_fit_gives_several_points_and_a_restart_asks_the_rest() -> None:
    def running_on(study: optuna.Study, count: int) -> list[dict[str, Any]]:
        return [suggest(study.ask()) for _ in range(count)]

    study, other = (new_study(SurrogateSampler(SPACE, seed=4)) for _ in range(2))
    for each in (study, other):
        run(each, 14)
    asked = running_on(study, 24)
    assert len({str(values) for values in asked}) == 24, "none is asked twice"
    assert running_on(other, 13) == asked[:13]
    back = new_study(SurrogateSampler(SPACE, seed=4))
    back.add_trials(other.trials)
    assert running_on(back, 11) == asked[13:]


def test_a_point_that_was_chosen_ahead_and_tried_meanwhile_is_not_asked_again() -> None:
    study, other = (new_study(SurrogateSampler(SPACE, seed=4)) for _ in range(2))
    for each in (study, other):
        run(each, 14)
        for _ in range(9):
            suggest(each.ask())
    ahead = [suggest(study.ask()) for _ in range(6)]
    for values in ahead[:5]:
        other.enqueue_trial(values)
        assert suggest(other.ask()) == values
    assert suggest(other.ask()) not in ahead[:5]


def test_an_ask_that_comes_late_knows_what_came_before_it_alone() -> None:
    study = new_study(SurrogateSampler(SPACE, seed=4))
    run(study, 12)
    late = study.ask()
    suggest(study.ask())
    suggest(late)
    other = new_study(SurrogateSampler(SPACE, seed=4))
    run(other, 12)
    assert suggest(other.ask()) == late.params


def test_one_sampler_serves_several_studies() -> None:
    sampler = SurrogateSampler(SPACE, seed=6)
    first = run(new_study(sampler), 14)
    assert run(new_study(sampler), 14) == first


def test_without_a_space_conditional_parameters_are_drawn_at_random() -> None:
    asked = run(new_study(SurrogateSampler(seed=0)), 16)
    assert len({str(values) for values in asked}) == 16
