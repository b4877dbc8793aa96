"""Importances say how sure they are, and that nothing matters where nothing varies."""

from __future__ import annotations

import random

import pytest

from service.results import importance
from tests.service.results.test_analyses import fill, get

PARAMETERS = ("hidden_size", "num_layers", "idle")


def _sweep(services, trials, seed, score):
    source = random.Random(seed)
    points = []
    for _ in range(trials):
        parameters = {name: source.randrange(6) for name in PARAMETERS}
        points.append((score(parameters, source), 0.5, parameters))
    space = {"points": None, "feasible_share": 1.0, "sampled": True, "open_parameters": [*PARAMETERS], "rejections": {}}
    return fill(services, points, space=space)


def test_an_objective_that_does_not_vary_makes_nothing_important(client, services):
    found = get(client, _sweep(services, 24, 0, lambda parameters, source: source.random()), "importance")
    assert found["constant"] == ["accuracy"]
    assert set(found["objectives"]["accuracy"].values()) == {0.0}
    assert sum(found["objectives"]["latency_ms_p50"].values()) == pytest.approx(1.0)


def test_each_share_lies_within_its_interval_and_what_matters_is_above_noise(client, services):
    def score(parameters, source):
        return parameters["hidden_size"] + source.random() / 10

    found = get(client, _sweep(services, 60, 1, score), "importance")
    shares, noise = found["objectives"]["latency_ms_p50"], found["noise"]["latency_ms_p50"]
    low, high = found["intervals"]["latency_ms_p50"]["hidden_size"]
    assert 0 <= low < high <= 1
    assert shares["hidden_size"] > noise["hidden_size"]
    assert shares["idle"] <= noise["idle"] or shares["idle"] < 0.1
    assert next(iter(shares)) == "hidden_size", "the first is the one that matters most"


def test_as_few_trials_as_the_quickstart_has_are_enough(client, services):
    def score(parameters, source):
        return parameters["hidden_size"] + source.random() / 10

    found = get(client, _sweep(services, 14, 1, score), "importance")
    assert found["fewest_trials"] == 10
    assert sum(found["objectives"]["latency_ms_p50"].values()) == pytest.approx(1.0)
    assert found["objectives"]["latency_ms_p50"].keys() == set(PARAMETERS)
    assert get(client, _sweep(services, 9, 1, score), "importance")["objectives"] == {}


def test_resamples_end_when_their_time_is_over_and_their_number_is_said(client, services, monkeypatch):
    def score(parameters, source):
        return parameters["hidden_size"] + source.random() / 10

    unhurried = get(client, _sweep(services, 60, 1, score), "importance")
    assert unhurried["resamples"] == {"latency_ms_p50": importance.MOST_RESAMPLES, "accuracy": 0}
    monkeypatch.setattr(importance, "SECONDS", 0.0)
    found = get(client, _sweep(services, 60, 1, score), "importance")
    assert found["resamples"] == {"latency_ms_p50": importance.LEAST_RESAMPLES, "accuracy": 0}
    assert found["objectives"] == unhurried["objectives"]
    assert found["intervals"]["latency_ms_p50"].keys() == set(PARAMETERS)


def test_an_idle_parameter_is_seldom_both_first_and_above_noise(client, services):
    """With 22 trials an idle parameter comes first now and then: it must not look as if it mattered."""

    def score(parameters, source):
        return parameters["hidden_size"] + parameters["num_layers"] / 4 + source.gauss(0, 1)

    misleading = 0
    for seed in range(8):
        found = get(client, _sweep(services, 22, seed, score), "importance")
        shares, noise = found["objectives"]["latency_ms_p50"], found["noise"]["latency_ms_p50"]
        misleading += shares["idle"] > max(shares["hidden_size"], noise["idle"])
    assert misleading <= 1
