from __future__ import annotations

import csv
import io
import itertools
import json

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from service.database.models import Sweep
from service.results.exports import _cell
from service.routes.sweeps import EXAMPLE
from service.sweeps.best_trials import best_trials
from tests.service.sweep_rows import add_sweep, add_trial, rank

QUALITIES = ((1.0, 5.0), (2.0, 4.0), (1.5, 6.0), (4.0, 1.0), (2.0, 4.0))
"""Latency and loss by trial number: rank 1 is 0, 1, 3, 4; rank 2 is 2."""


@pytest.fixture
def sweep(client, services) -> str:
    def fill(session):
        sweep = add_sweep(session)
        trials = [
            add_trial(
                session,
                sweep,
                number,
                {"latency_ms_p50": latency, "validation_loss": loss, "parameter_count": 1000.0 - number},
                parameters={"num_layers": [8, 10, 9, 2, 2][number], "mlp.kind": ["MLP", "GatedMLP"][number % 2]},
            )
            for number, (latency, loss) in enumerate(QUALITIES)
        ]
        metrics = {"latency_ms_p50": 0.5, "validation_loss": 0.5}
        trials.append(add_trial(session, sweep, 5, metrics, feasible=False, parameters={"num_layers": 1}))
        trials.append(add_trial(session, sweep, 6, {"latency_ms_p50": 9.0}, state="infeasible", feasible=False))
        trials.append(add_trial(session, sweep, 7, {}, state="failed", feasible=None, reason="=1+1"))
        trials.append(add_trial(session, sweep, 8))
        rank(session, sweep, trials)
        return sweep.id

    return services.database.write(fill)


def numbers(client, sweep, **params):
    answer = client.get(f"/v1/sweeps/{sweep}/leaderboard", params=params)
    assert answer.status_code == 200, answer.text
    return [item["number"] for item in answer.json()["items"]]


def test_trials_are_ranked_by_front_then_first_objective_then_number(client, sweep):
    assert numbers(client, sweep) == [0, 1, 4, 3, 2, 5, 6, 7, 8]
    board = client.get(f"/v1/sweeps/{sweep}/leaderboard").json()
    assert [item["rank"] for item in board["items"]] == [1, 1, 1, 1, 2, None, None, None, None]
    assert [item["on_front"] for item in board["items"][:5]] == [True, True, True, True, False]
    assert board["total"] == 9
    assert board["objectives"][0] == {"metric": "latency_ms_p50", "goal": "minimize"}


def test_any_metric_or_parameter_sorts_and_what_lacks_it_comes_last(client, sweep):
    expected = {
        "number": [0, 1, 2, 3, 4, 5, 6, 7, 8],
        "-number": [8, 7, 6, 5, 4, 3, 2, 1, 0],
        "validation_loss": [5, 3, 1, 4, 0, 2, 6, 7, 8],
        "-validation_loss": [2, 0, 1, 4, 3, 5, 6, 7, 8],
        "num_layers": [5, 3, 4, 6, 7, 0, 8, 2, 1],
        "-num_layers": [1, 2, 0, 8, 7, 6, 3, 4, 5],
        "mlp.kind": [1, 3, 0, 2, 4, 5, 6, 7, 8],
        "-rank": [2, 0, 1, 4, 3, 5, 6, 7, 8],
    }
    for sort, order in expected.items():
        assert numbers(client, sweep, sort=sort) == order, sort


def test_pages_are_the_whole_list_whatever_it_is_sorted_by(client, sweep):
    sorts = ("rank", "-rank", "number", "-validation_loss", "num_layers", "-mlp.kind")
    for sort, size in itertools.product(sorts, (1, 2, 4)):
        found, params = [], {"sort": sort, "page_size": size}
        while True:
            answer = client.get(f"/v1/sweeps/{sweep}/leaderboard", params=params)
            found += [item["number"] for item in answer.json()["items"]]
            token = answer.json()["next_page_token"]
            assert ('rel="next"' in answer.headers.get("link", "")) == (token is not None)
            if token is None:
                break
            params["page_token"] = token
        assert found == numbers(client, sweep, sort=sort)


def test_filters_are_joined(client, sweep):
    assert numbers(client, sweep, state="complete") == [0, 1, 4, 3, 2, 5]
    assert numbers(client, sweep, state=["failed", "queued"]) == [7, 8]
    assert numbers(client, sweep, feasible=True) == [0, 1, 4, 3, 2]
    assert numbers(client, sweep, feasible=False) == [5, 6]
    assert numbers(client, sweep, on_front=True) == [0, 1, 4, 3]
    assert numbers(client, sweep, on_front=False, feasible=True) == [2]
    assert client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"feasible": False}).json()["total"] == 2


def test_conditions_on_any_metric_or_parameter_keep_trials(client, sweep):
    assert numbers(client, sweep, where="latency_ms_p50<=1.5") == [0, 2, 5]
    assert numbers(client, sweep, where="mlp.kind = GatedMLP") == [1, 3]
    assert numbers(client, sweep, where="kind = GatedMLP") == [1, 3], "as the table of a terminal names it"
    assert numbers(client, sweep, sort="-kind") == numbers(client, sweep, sort="-mlp.kind")
    assert numbers(client, sweep, where="mlp.kind!=GatedMLP") == [0, 4, 2], "what has no kind is not of another kind"
    assert numbers(client, sweep, where=["num_layers>=8", "validation_loss<6"]) == [0, 1]
    assert numbers(client, sweep, where="mlp.kind=FusedGatedMLP") == [], "no trial of this sweep has it"
    assert numbers(client, sweep, where="hidden_size=64") == [], "no trial of this sweep has it"
    answer = client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"where": "num_layers<=2", "format": "csv"})
    assert [row["number"] for row in read_csv(answer)] == ["4", "3", "5"]


def test_a_sweep_without_trials_is_filtered_by_words_too(client):
    sweep = client.post("/v1/sweeps", json=EXAMPLE).json()["id"]
    assert numbers(client, sweep, where="mlp.kind=GatedMLP") == []


def test_the_last_part_of_several_names_is_refused_with_all_of_them(client):
    model = {**EXAMPLE["model"], "norm": {"kind": {"values": ["LayerNorm", "RmsNorm"]}}}
    sweep = client.post("/v1/sweeps", json={**EXAMPLE, "model": model}).json()["id"]
    for asked in ({"where": "kind=GatedMLP"}, {"sort": "-kind"}):
        answer = client.get(f"/v1/sweeps/{sweep}/leaderboard", params=asked)
        assert answer.status_code == 422
        assert "'kind' may be mlp.kind, norm.kind: write one of them" in answer.json()["detail"], asked


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("mlp.kind=Nothing", "MLP, GatedMLP, FusedGatedMLP"),
        ("mlp.kind!=mlp", "MLP, GatedMLP, FusedGatedMLP"),
        ("kind=mlp", "MLP, GatedMLP, FusedGatedMLP"),
        ("attention.position_embedding_type=rope", "rope_gpt_neox"),
        ("layers.0.attention.position_embedding_type=rope", "rope_gpt_neox"),
        ("tie_embeddings=yes", "false, true"),
        ("training.trainable=prompts", "all, prompt"),
    ],
)
def test_a_value_that_a_parameter_never_has_is_refused_with_those_it_has(client, sweep, where, said):
    answer = client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"where": where})
    assert answer.status_code == 422
    (problem,) = answer.json()["errors"]
    assert problem["pointer"] == "/where"
    assert said in problem["remedy"]


def test_what_cannot_be_answered_is_refused(client, sweep):
    for params, said in (
        ({"sort": "beauty"}, "num_layers"),
        ({"sort": 'x"); DROP TABLE trials; --'}, "sort by"),
        ({"state": "sleeping"}, "choose from queued"),
        ({"where": "latency_ms_p50"}, "latency_ms_p50<=2"),
        ({"where": "beauty>3"}, "compare by a metric"),
        ({"where": "num_layers>=many"}, "is a number here"),
        ({"where": "mlp.kind<MLP"}, "compare it by = or !="),
        ({"where": "x" * 400}, "is not a condition"),
        ({"where": ["num_layers>=1"] * 21}, "where"),
        ({"page_token": "AAAA"}, "page_token"),
        ({"page_token": "%%%"}, "page_token"),
        ({"page_size": 0}, "page_size"),
        ({"feasible": "perhaps"}, "feasible"),
    ):
        answer = client.get(f"/v1/sweeps/{sweep}/leaderboard", params=params)
        assert answer.status_code == 422, params
        assert said in answer.text
        assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(params))}"


def test_a_token_belongs_to_its_sort_and_filters(client, sweep):
    token = client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"page_size": 2}).json()["next_page_token"]
    for other in ({"sort": "number"}, {"feasible": True}, {"state": "complete"}):
        answer = client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"page_token": token} | other)
        assert answer.status_code == 422
        assert "begin again" in answer.json()["detail"]
        assert answer.json()["errors"][0]["pointer"] == "/page_token"


def read_csv(answer):
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_csv_holds_all_rows_with_a_column_for_each_metric_and_parameter(client, sweep):
    by_query = client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"format": "csv", "page_size": 1})
    rows = read_csv(by_query)
    assert [int(row["number"]) for row in rows] == [0, 1, 4, 3, 2, 5, 6, 7, 8]
    assert (rows[0]["latency_ms_p50"], rows[0]["mlp.kind"], rows[0]["on_front"]) == ("1.0", "MLP", "true")
    assert (rows[-1]["latency_ms_p50"], rows[-1]["rank"], rows[-1]["feasible"]) == ("", "", "")
    assert rows[7]["reason"] == "'=1+1", "a spreadsheet must not run it"
    by_header = client.get(f"/v1/sweeps/{sweep}/leaderboard", headers={"Accept": "text/csv"})
    assert by_header.text == by_query.text
    both = client.get(f"/v1/sweeps/{sweep}/leaderboard", params={"format": "json"}, headers={"Accept": "text/csv"})
    assert both.headers["content-type"] == "application/json"


@given(st.text(max_size=20))
def test_no_text_in_a_cell_begins_a_formula(text):
    assert not str(_cell(text)).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


def test_numbers_stay_numbers_in_csv():
    assert _cell(-0.5) == -0.5
    assert _cell(False) == "false"


def test_a_caller_that_has_the_ranking_is_told_so_until_it_changes(client, services, sweep):
    path = f"/v1/sweeps/{sweep}/leaderboard"
    headers = {"If-None-Match": client.get(path).headers["ETag"]}
    assert client.get(path, headers=headers).status_code == 304
    assert client.get(path, params={"format": "csv"}, headers=headers).status_code == 200, "another form"
    ranked = sa.update(Sweep).where(Sweep.id == sweep).values(scheduled_sequence=Sweep.scheduled_sequence + 1)
    services.database.write(lambda session: session.execute(ranked).rowcount)
    assert client.get(path, headers=headers).status_code == 200, "ranks may change without an event"


def test_the_front_is_rank_one_by_the_first_objective(client, sweep):
    front = client.get(f"/v1/sweeps/{sweep}/front").json()
    assert [item["number"] for item in front["items"]] == [0, 1, 4, 3]


def test_a_sweep_without_a_feasible_trial_recommends_none_and_says_why(client, services):
    def empty(session):
        return add_sweep(session).id, add_sweep(session, state="completed").id

    active, ended = services.database.write(empty)
    for sweep, said in ((active, "does not yet have"), (ended, "ended without")):
        answer = client.get(f"/v1/sweeps/{sweep}/recommendation")
        assert answer.status_code == 404
        assert said in answer.json()["detail"]
        assert client.get(f"/v1/sweeps/{sweep}/front").json()["items"] == []
        assert client.get(f"/v1/sweeps/{sweep}/leaderboard").json()["items"] == []


def test_an_unknown_sweep_is_not_found(client):
    for path in ("leaderboard", "front", "recommendation"):
        assert client.get(f"/v1/sweeps/nothing/{path}").status_code == 404


def test_maximized_objectives_rank_the_highest_first(client, services):
    def fill(session):
        sweep = add_sweep(session, objectives=[{"metric": "accuracy", "goal": "maximize"}])
        trials = [
            add_trial(session, sweep, number, {"accuracy": value}) for number, value in enumerate((0.1, 0.9, 0.5))
        ]
        rank(session, sweep, trials)
        best = best_trials(session, sweep)
        return sweep.id, best["accuracy"].number

    sweep, best = services.database.write(fill)
    assert best == 1
    assert numbers(client, sweep) == [1, 2, 0]


def test_large_integers_page(client, services):
    """Parameters hold larger integers than a row's number does."""

    def fill(session):
        document = {"model": {}, "training": {"tokens": {"min": 1, "max": 10**15}}}
        sweep = add_sweep(session, document=document)
        for number in range(4):
            add_trial(session, sweep, number, parameters={"training.tokens": 10**15 - number})
        return sweep.id

    sweep = services.database.write(fill)
    params = {"sort": "training.tokens", "page_size": 2}
    first = client.get(f"/v1/sweeps/{sweep}/leaderboard", params=params).json()
    params["page_token"] = first["next_page_token"]
    second = client.get(f"/v1/sweeps/{sweep}/leaderboard", params=params).json()
    assert [item["number"] for item in first["items"] + second["items"]] == [3, 2, 1, 0]


def test_an_export_is_a_stream_of_every_row(client, services):
    def fill(session):
        sweep = add_sweep(session)
        for number in range(1205):
            add_trial(session, sweep, number)
        return sweep.id

    path = f"/v1/sweeps/{services.database.write(fill)}/leaderboard"
    lines = client.get(path, params={"format": "jsonl", "sort": "-number"})
    assert lines.headers["content-type"].startswith("application/jsonl")
    assert [json.loads(line)["number"] for line in lines.text.splitlines()] == list(range(1204, -1, -1))
    table = client.get(path, headers={"Accept": "text/csv"}, params={"sort": "number"})
    assert [int(row["number"]) for row in csv.DictReader(io.StringIO(table.text))] == list(range(1205))
