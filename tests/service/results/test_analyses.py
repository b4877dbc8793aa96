"""What the pictures of a sweep show, over HTTP."""

from __future__ import annotations

import itertools
import random

import pytest

from service.results.importance import sampled_from
from tests.service.sweep_rows import add_sweep, add_trial, rank

OBJECTIVES = [{"metric": "latency_ms_p50", "goal": "minimize"}, {"metric": "accuracy", "goal": "maximize"}]


def fill(services, points, **changes):
    """A sweep with a trial for each (latency, accuracy, parameters)."""

    def write(session):
        sweep = add_sweep(session, objectives=OBJECTIVES, **changes)
        trials = [
            add_trial(session, sweep, number, {"latency_ms_p50": latency, "accuracy": accuracy}, parameters=parameters)
            for number, (latency, accuracy, parameters) in enumerate(points)
        ]
        rank(session, sweep, trials)
        return sweep.id

    return services.database.write(write)


def get(client, sweep, what, status=200, **params):
    answer = client.get(f"/v1/sweeps/{sweep}/{what}", params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


def refused(answer, pointer):
    (problem,) = answer["errors"]
    assert problem["pointer"] == pointer
    return problem["detail"]


@pytest.fixture
def many(client, services) -> str:
    """Sixty trials: the number of layers costs latency, the width brings accuracy, the heads do nothing."""
    source = random.Random(0)
    points = []
    for layers, width, heads in itertools.product([1, 2, 4, 8], [64, 128, 256], [2, 4, 8, 16, 32]):
        parameters = {"num_layers": layers, "hidden_size": width, "attention.num_attention_heads": heads}
        points.append((layers + source.random() / 10, width / 512 + source.random() / 100, parameters))
    return fill(services, points)


def test_columns_list_what_was_asked_for_in_the_order_of_numbers(client, many):
    found = get(client, many, "columns", name=["latency_ms_p50", "num_layers"])
    assert found["number"] == list(range(60))
    assert found["total"] == 60
    assert found["values"]["num_layers"][:2] == [1, 1]
    assert len(found["trial"]) == len(found["rank"]) == len(found["values"]["latency_ms_p50"]) == 60
    assert all(found["feasible"])


def test_fewer_are_listed_where_there_are_too_many_and_the_front_is_among_them(client, many):
    board = get(client, many, "front")["items"]
    found = get(client, many, "columns", name=["latency_ms_p50", "accuracy"], limit=12)
    assert len(found["number"]) == 12
    assert found["total"] == 60
    assert {item["number"] for item in board} <= set(found["number"])


def test_the_hypervolume_grows_to_what_the_final_front_dominates(client, services):
    parameters = {"num_layers": 1}
    sweep = fill(services, [(3.0, 0.6, parameters), (4.0, 0.5, parameters), (1.0, 0.2, parameters)])
    found = get(client, sweep, "hypervolume")
    assert found["reference"] == pytest.approx({"latency_ms_p50": 3.2, "accuracy": 0.16})
    assert [step["number"] for step in found["steps"]] == [0, 2], "a dominated trial adds nothing"
    assert [step["trials"] for step in found["steps"]] == [1, 3]
    box = 2.2 * 0.44
    assert found["steps"][0]["share"] == pytest.approx(0.2 * 0.44 / box, abs=0.01)
    assert found["steps"][1]["share"] == pytest.approx((0.2 * 0.44 + 2.0 * 0.04) / box, abs=0.01)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([(3.0, 0.6)], "the front is one point"),
        ([(3.0, 0.6), (2.9, 0.7), (3.1, 0.5)], "the front is one point"),
        ([(3.0, 0.6), (3.0, 0.7)], "the front is one point"),
        ([(3.0, 0.6), (3.0, 0.6)], "no objective varies over the 2 feasible trials"),
    ],
)
def test_a_front_of_one_point_has_no_hypervolume(client, services, points, reason):
    sweep = fill(services, [(*each, {"num_layers": 1}) for each in points])
    found = get(client, sweep, "hypervolume")
    assert (found["steps"], found["reference"], found["trials"]) == ([], {}, len(points))
    assert reason in found["reason"]


def test_a_sweep_of_one_objective_has_no_hypervolume(client, services):
    def write(session):
        sweep = add_sweep(session, objectives=OBJECTIVES[:1])
        rank(session, sweep, [add_trial(session, sweep, n, {"latency_ms_p50": 1.0 + n % 3}) for n in range(6)])
        return sweep.id

    found = get(client, services.database.write(write), "hypervolume")
    assert found["steps"] == []
    assert "the front is one point" in found["reason"]


def test_importance_finds_what_matters_to_each_objective(client, many):
    found = get(client, many, "importance")
    assert found["trials"] == found["total"] == 60
    for objective, parameter in (("latency_ms_p50", "num_layers"), ("accuracy", "hidden_size")):
        shares = found["objectives"][objective]
        assert max(shares, key=shares.get) == parameter
        assert sum(shares.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(("trials", "sampled"), [(999, 999), (1000, 1000), (1099, 1000), (91_934, 91_000)])
def test_one_more_trial_among_thousands_costs_no_new_importance(trials, sampled):
    assert sampled_from(trials) == sampled


def test_an_effect_is_the_spread_of_a_metric_at_each_value(client, many):
    found = get(client, many, "effect", parameter="num_layers", metric="latency_ms_p50")
    assert [level["low"] for level in found["levels"]] == [1, 2, 4, 8]
    assert [level["trials"] for level in found["levels"]] == [15] * 4
    for level in found["levels"]:
        quartiles = [level["best"], level["quartile_1"], level["median"], level["quartile_3"]]
        assert quartiles == sorted(quartiles)
        assert level["low"] <= level["best"] <= level["low"] + 0.1
    best = get(client, many, "effect", parameter="num_layers", metric="accuracy")["levels"][0]
    assert best["best"] > best["quartile_3"], "of a metric to maximize, the best is the highest"


def test_an_effect_says_whether_its_metric_varies(client, services):
    sweep = fill(services, [(1.0, 0.5 + n / 10, {"num_layers": n}) for n in range(4)])
    assert get(client, sweep, "effect", parameter="num_layers", metric="latency_ms_p50")["constant"]
    assert not get(client, sweep, "effect", parameter="num_layers", metric="accuracy")["constant"]
    one = fill(services, [(1.0, 0.5, {"num_layers": 1})])
    assert not get(client, one, "effect", parameter="num_layers", metric="accuracy")["constant"]


def test_words_and_many_values_have_effects_too(client, services):
    points = [(1.0 + n, 0.5, {"mlp.kind": ["MLP", "GatedMLP"][n % 2], "num_layers": n}) for n in range(50)]
    sweep = fill(services, points)
    words = get(client, sweep, "effect", parameter="mlp.kind", metric="latency_ms_p50")
    assert [level["low"] for level in words["levels"]] == ["GatedMLP", "MLP"]
    ranges = get(client, sweep, "effect", parameter="num_layers", metric="latency_ms_p50")
    assert len(ranges["levels"]) == 12
    assert sum(level["trials"] for level in ranges["levels"]) == 50
    assert (ranges["levels"][0]["low"], ranges["levels"][-1]["high"]) == (0, 49)


def test_a_sweep_without_results_is_answered_without_any(client, services):
    sweep = services.database.write(lambda session: add_sweep(session).id)
    assert get(client, sweep, "columns", name="latency_ms_p50")["number"] == []
    nothing = get(client, sweep, "hypervolume")
    assert (nothing["steps"], nothing["reason"]) == ([], None)
    assert get(client, sweep, "importance")["objectives"] == {}
    assert get(client, sweep, "effect", parameter="num_layers", metric="latency_ms_p50")["levels"] == []


def test_what_cannot_be_drawn_is_refused(client, many):
    assert "neither a metric" in refused(get(client, many, "columns", 422, name="beauty"), "/name")
    get(client, many, "columns", 422)
    get(client, many, "columns", 422, name="num_layers", limit=100_000)
    unknown = get(client, many, "effect", 422, parameter="x", metric="accuracy")
    assert "not one of this sweep's" in refused(unknown, "/parameter")
    assert "is not a metric" in refused(get(client, many, "effect", 422, parameter="num_layers", metric="x"), "/metric")
    for what in ("columns?name=num_layers", "hypervolume", "importance"):
        assert client.get(f"/v1/sweeps/nothing/{what}").status_code == 404


def test_an_unchanged_sweep_is_not_sent_again(client, many):
    first = client.get(f"/v1/sweeps/{many}/importance")
    again = client.get(f"/v1/sweeps/{many}/importance", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_tradeoff_has_the_edge_of_two_metrics_and_where_the_constraints_lie(client, services):
    points = [(1.0, 0.5, {}), (2.0, 0.7, {}), (3.0, 0.6, {}), (4.0, 0.9, {})]
    document = {"constraints": ["latency_ms_p50 <= 5", "2 * accuracy >= 1", "latency_ms_p50 * accuracy <= 9"]}
    sweep = fill(services, points, document=document)
    found = get(client, sweep, "tradeoff", x="latency_ms_p50", y="accuracy")
    assert found["sample"]["values"] == {"latency_ms_p50": [1, 2, 3, 4], "accuracy": [0.5, 0.7, 0.6, 0.9]}
    assert [point["latency_ms_p50"] for point in found["edge"]] == [1, 2, 4]
    assert [(limit["metric"], limit["value"]) for limit in found["limits"]] == [
        ("latency_ms_p50", pytest.approx(5)),
        ("accuracy", pytest.approx(0.5)),
    ]
    by_number = get(client, sweep, "tradeoff", x="number", y="accuracy")
    assert by_number["sample"]["number"] == [0, 1, 2, 3]
    assert by_number["edge"] == []
    unknown = get(client, sweep, "tradeoff", status=422, x="accuracy", y="beauty")
    assert "is not a metric" in refused(unknown, "/y")
