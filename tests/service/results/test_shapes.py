"""Every metric at every shape, under each name that a user may write, through all that names metrics."""

from __future__ import annotations

import copy
import csv
import io
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from layers.dataset_facts import BUILT_IN
from layers.expressions.metric_names import MetricNames
from layers.metrics import METRICS
from layers.space.document import parse_document
from service.app import Services
from service.database.models import Sweep
from service.results import importance
from service.results.columns import ColumnStore
from service.results.schemas import Importance
from tests.service.sweep_rows import DOCUMENT, add_measurement, add_sweep, add_trial, complete_configuration, rank

SHAPES: list[dict[str, Any]] = [
    {"name": "chat", "batch_size": 1, "sequence_length": 64},
    {"name": "bulk", "batch_size": 32, "sequence_length": 128},
]
NAMES = MetricNames(("chat", "bulk"))
FULL = list(NAMES)
WRITTEN = [*FULL, *(name for name in METRICS if name not in FULL)]
"""Every name that a user may write: a bare one means the first shape."""
TRIALS = importance.FEWEST_TRIALS
MOST_OBJECTIVES = 8


def value(name: str, number: int) -> float:
    """Another order of the trials for each metric."""
    return (7 * number + 3 * FULL.index(name)) % 23 / 23


@pytest.fixture
def sweep(services: Services) -> str:
    """A sweep of two shapes with trials that have every metric at each."""

    def write(session: Session) -> str:
        document = {**DOCUMENT, "inference": {"shapes": SHAPES}, "constraints": []}
        objectives = [{"metric": name, "goal": METRICS[name.partition("@")[0]].goal} for name in FULL[:2]]
        made = add_sweep(session, objectives=objectives, document=document)
        configuration = {**complete_configuration(2), "shapes": SHAPES}
        trials = [
            add_trial(
                session,
                made,
                number,
                {name: value(name, number) for name in FULL},
                parameters={"num_layers": 1 + number % 8, "hidden_size": 64},
                configuration=configuration,
            )
            for number in range(TRIALS)
        ]
        rank(session, made, trials)
        for shape in ("chat", "bulk"):
            samples = {"samples_ms": [1.0, 1.1] * 20}
            add_measurement(session, trials[0], f"latency_samples_ms@{shape}", samples)
        return made.id

    return services.database.write(write)


def test_every_metric_at_every_shape_has_one_name_wherever_it_is_written(
    client: TestClient, services: Services, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"/v1/sweeps/{sweep}"

    def get(what: str, **params: Any) -> Any:
        answer = client.get(f"{url}/{what}", params=params)
        assert answer.status_code == 200, (what, params, answer.text)
        return answer.json()

    table = list(csv.DictReader(io.StringIO(client.get(f"{url}/leaderboard", params={"format": "csv"}).text)))
    for written in WRITTEN:
        name = NAMES.resolve(written)
        assert {int(row["number"]): float(row[name]) for row in table} == {n: value(name, n) for n in range(TRIALS)}
        numbers = sorted(range(TRIALS), key=lambda number: (value(name, number), number))
        first = get("leaderboard", sort=written, page_size=3)["items"]
        assert [row["number"] for row in first] == numbers[:3]
        kept = get("leaderboard", where=f"{written}<=0.2", sort="number")["items"]
        assert [row["number"] for row in kept] == [n for n in range(TRIALS) if value(name, n) <= 0.2]
        assert get("tradeoff", x=written, y="number")["x"] == name
        assert get("effect", parameter="num_layers", metric=written)["metric"] == name
        front = get("recommendation", prefer=written)
        assert front["prefer"] == [name]

    some = WRITTEN[-40:]
    assert get("columns", name=some)["values"] == {
        written: [value(NAMES.resolve(written), n) for n in range(TRIALS)] for written in some
    }
    monkeypatch.setattr(importance, "SECONDS", 0.0)
    for start in range(0, len(FULL), MOST_OBJECTIVES):
        some = FULL[start : start + MOST_OBJECTIVES]
        found = services.database.read(lambda session, some=some: _importance(session, sweep, some))
        assert list(found.objectives) == some


def _importance(session: Session, sweep: str, names: list[str]) -> Importance:
    """Of the trials, as if the sweep had these objectives."""
    row = session.get_one(Sweep, sweep)
    session.expunge(row)
    row.objectives = [{"metric": name, "goal": METRICS[name.partition("@")[0]].goal} for name in names]
    columns = ColumnStore().of(session, row, [*names, *row.space["open_parameters"]])
    return importance.importance(columns, row)


@pytest.mark.parametrize("written", ["latency_ms_p50@foo", "validation_loss@chat", "latency_ms_p50@"])
def test_a_shape_that_the_sweep_lacks_is_refused_with_those_that_it_has(
    client: TestClient, sweep: str, written: str
) -> None:
    for what, params in (
        ("leaderboard", {"sort": written}),
        ("leaderboard", {"where": f"{written}<=1"}),
        ("columns", {"name": written}),
        ("tradeoff", {"x": written, "y": "number"}),
        ("effect", {"parameter": "num_layers", "metric": written}),
        ("recommendation", {"prefer": written}),
    ):
        answer = client.get(f"/v1/sweeps/{sweep}/{what}", params=params)
        assert answer.status_code == 422, (what, answer.text)
        right = "write validation_loss" if written.startswith("validation") else "latency_ms_p50@chat"
        assert right in answer.text, (what, answer.text)


def test_pages_and_reports_show_each_shape(client: TestClient, sweep: str) -> None:
    board = client.get(f"/v1/sweeps/{sweep}/leaderboard").json()["items"]
    page = client.get(f"/sweeps/{sweep}?sort=latency_ms_p50&where=latency_ms_p50@bulk<1").text
    assert "latency p50 at bulk" in page
    trial = next(row["trial"] for row in board if row["number"] == 0)
    shown = client.get(f"/trials/{trial}").text
    assert "32 × 128" in shown
    assert "Latency at each shape by the tokens of one inference" in shown
    report = client.get(f"/v1/sweeps/{sweep}/report", params={"format": "html"}).text
    assert "Latency over batch and length" in report
    assert "32 × 128" in client.get(f"/v1/sweeps/{sweep}/report", params={"format": "markdown"}).text


def test_the_report_shows_prompts_and_steps_of_a_trial_that_generates(client: TestClient, services: Services) -> None:
    lengths = {"batch_size": 3, "sequence_length": 96, "prompt_tokens": 64, "new_tokens": 32}
    inference = {"mode": "generate", **lengths}
    metrics = {"prefill_ms_p50": 2.5, "decode_ms_per_token_p50": 0.625, "tokens_per_s": 1234.0, "validation_loss": 2.0}

    def write(session: Session) -> str:
        objectives = [{"metric": "decode_ms_per_token_p50", "goal": "minimize"}]
        document = {**DOCUMENT, "inference": inference, "constraints": []}
        made = add_sweep(session, objectives=objectives, document=document)
        configuration = {**complete_configuration(2), "inference": inference}
        trial = add_trial(session, made, 0, metrics, parameters={"num_layers": 2}, configuration=configuration)
        rank(session, made, [trial])
        return made.id

    report = f"/v1/sweeps/{services.database.write(write)}/report"
    assert "Prompt and tokens" in client.get(report, params={"format": "html"}).text
    plain = client.get(report, params={"format": "markdown"}).text
    (row,) = (line for line in plain.splitlines() if line.startswith("|") and "3 × 64 + 32" in line)
    assert "2.5" in row
    assert "0.625" in row


def test_every_metric_at_every_shape_can_be_an_objective_and_a_constraint() -> None:
    document: dict[str, Any] = {
        "name": "shapes",
        "task": "causal_lm",
        "dataset": "python-topics",
        "model": {"num_layers": 1, "hidden_size": {"values": [32, 64]}, "attention": {"num_attention_heads": 2}},
    }
    forward = {"shapes": {shape["name"]: {k: v for k, v in shape.items() if k != "name"} for shape in SHAPES}}
    generated = {
        "mode": "generate",
        "shapes": {
            "chat": {"batch_size": 1, "prompt_tokens": 16, "new_tokens": 8},
            "bulk": {"batch_size": 8, "prompt_tokens": 32, "new_tokens": 8},
        },
    }
    for written in WRITTEN:
        declared = METRICS[written.partition("@")[0]]
        if declared.source in ("confirmation", "replicates") or written == "accuracy":
            # No sweep decides by the former, and no causal_lm has the latter.
            continue
        document["inference"] = generated if declared.of_generation else forward
        said = {"objectives": [{"metric": written}], "constraints": [f"{written} <= 3"]}
        read = parse_document(copy.deepcopy({**document, **said}), find_dataset=BUILT_IN.get)
        name = NAMES.resolve(written)
        assert read.objectives[0]["metric"] == name
        assert read.constraints[0].metrics == (name,)
        assert read.constraints[0].violation({name: 4.0}) == 1.0
        assert parse_document(read.normalized, find_dataset=BUILT_IN.get).normalized == read.normalized
