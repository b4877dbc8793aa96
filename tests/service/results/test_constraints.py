"""/v1/sweeps/{id}/constraints over rows: what was broken, and the limits under which more trials were feasible."""

from __future__ import annotations

import html
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from layers.expressions.constraints import parse_constraint
from service.http.dependencies import Services
from tests.service.sweep_rows import add_sweep, add_trial, rank

LATENCY, MEMORY, LOSS = "latency_ms_p99 <= 1", "memory_bytes <= 1e6", "validation_loss < 2"


@pytest.fixture
def sweep_of(client: TestClient, services: Services):
    """Makes a sweep of trials with these figures, judged as workers' are; without a loss they were not trained."""

    def made(constraints: list[str], figures: list[dict[str, float]], state: str = "completed") -> str:
        def fill(session: Session):
            sweep = add_sweep(session, document={"constraints": constraints}, state=state)
            trials = []
            for number, metrics in enumerate(figures):
                found = {text: parse_constraint(text).violation(metrics) for text in constraints}
                violations = {text: by for text, by in found.items() if by is not None}
                feasible = all(by <= 0 for by in violations.values())
                ended = "complete" if "validation_loss" in metrics else "infeasible"
                known: dict[str, Any] = {"state": ended, "feasible": feasible, "violations": violations}
                trials.append(add_trial(session, sweep, number, metrics, **known))
            add_trial(session, sweep, len(figures), {}, state="failed", feasible=None)
            rank(session, sweep, trials)
            return sweep.id

        return services.database.write(fill)

    return made


def summary(client: TestClient, sweep: str):
    answer = client.get(f"/v1/sweeps/{sweep}/constraints")
    assert answer.status_code == 200, answer.text
    return answer.json()


def trained(*latencies: float, **others: float) -> list[dict[str, float]]:
    return [{"latency_ms_p50": 1.0, "latency_ms_p99": each, "validation_loss": 1.5, **others} for each in latencies]


def test_it_names_the_nearest_miss_and_limits_for_one_three_and_five_trials(client: TestClient, sweep_of: Any) -> None:
    found = summary(client, sweep_of([LATENCY, LOSS], trained(1.5, 1.18, 2.0, 1.30004, 1.9, 9.0)))
    assert (found["judged"], found["feasible"]) == (6, 0)
    assert found["says"] == [
        "6 of 6 trials broke latency_ms_p99 <= 1; the nearest, trial 1, by 0.18 ms",
        "for 1 feasible trial allow latency_ms_p99 <= 1.18 (trial 1)",
        "for 3 feasible trials allow latency_ms_p99 <= 1.5 (trials 1, 3 and 0)",
        "for 5 feasible trials allow latency_ms_p99 <= 2 (trials 1, 3, 0, 4 and 2)",
    ]
    assert [each["trials"] for each in found["loosened"]] == [[1], [1, 3, 0], [1, 3, 0, 4, 2]]


def test_a_limit_is_rounded_so_that_it_allows_what_it_is_for(client: TestClient, sweep_of: Any) -> None:
    for text, measured, allowed in (
        ("latency_ms_p99 <= 1", 1.234512, "latency_ms_p99 <= 1.235"),
        ("latency_ms_p99 < 1", 1.0, "latency_ms_p99 <= 1"),
        ("memory_bytes <= 1e6", 2_345_678.0, "memory_bytes <= 2.346e6"),
        ("throughput_per_s >= 100", 87.6549, "throughput_per_s >= 87.65"),
        ("0.1 >= latency_ms_p99", 0.123449, "latency_ms_p99 <= 0.1235"),
    ):
        metric = text.split(" ")[0] if text[0].isalpha() else "latency_ms_p99"
        figures = [{metric: measured, "latency_ms_p50": 1.0, "validation_loss": 1.0}]
        (loosened,) = summary(client, sweep_of([text], figures))["loosened"]
        assert loosened["limits"][0]["allow"] == allowed
        violation = parse_constraint(allowed).violation(figures[0])
        assert violation is not None
        assert violation <= 0


def test_several_constraints_are_loosened_together_and_by_no_more_than_needed(
    client: TestClient, sweep_of: Any
) -> None:
    # Trial 0 misses one limit by 100 %, trials 1 and 2 both limits by 10 and 20 % at most.
    figures = [*trained(2.0, memory_bytes=5e5), *trained(1.1, memory_bytes=1.2e6), *trained(1.15, memory_bytes=1.05e6)]
    found = summary(client, sweep_of([LATENCY, MEMORY], figures))
    first, three = found["loosened"]
    assert first["trials"] == [2]
    assert first["says"] == "for 1 feasible trial allow latency_ms_p99 <= 1.15 and memory_bytes <= 1.05e6 (trial 2)"
    assert [each["limit"] for each in three["limits"]] == [2.0, 1.2e6]


def test_what_was_never_trained_is_not_said_to_keep_a_limit_on_its_loss(client: TestClient, sweep_of: Any) -> None:
    found = summary(client, sweep_of([LATENCY, LOSS], [{"latency_ms_p50": 1.0, "latency_ms_p99": 1.5}]))
    (loosened,) = found["loosened"]
    assert loosened["unknown"] == [LOSS]
    assert "whether they would keep validation_loss < 2 is not known" in loosened["says"]


def test_what_is_no_limit_on_one_metric_or_cannot_be_calculated_is_said_so(client: TestClient, sweep_of: Any) -> None:
    ratio = "latency_ms_p99 <= 0.5 * latency_ms_p50"
    (loosened,) = summary(client, sweep_of([ratio], trained(0.75)))["loosened"]
    assert loosened["limits"] == [
        {"constraint": ratio, "by": 0.25, "limit": None, "allow": f"{ratio}, loosened by 0.25"}
    ]
    assert summary(client, sweep_of(["validation_loss / (latency_ms_p50 - 1) <= 1"], trained(1.0)))["loosened"] == []


def test_feasible_trials_count_and_are_asked_for_no_more(client: TestClient, sweep_of: Any) -> None:
    found = summary(client, sweep_of([LATENCY], trained(0.5, 0.6, 1.5, 1.7)))
    assert (found["feasible"], found["judged"]) == (2, 4)
    assert [(each["feasible"], each["trials"]) for each in found["loosened"]] == [(3, [0, 1, 2])]
    assert summary(client, sweep_of([], trained(0.5)))["says"] == []
    assert client.get("/v1/sweeps/nothing/constraints").status_code == 404


def test_page_report_and_the_refused_recommendation_say_it(client: TestClient, sweep_of: Any) -> None:
    for state in ("completed", "active"):
        sweep = sweep_of([LATENCY], trained(1.5, 1.18, 2.0), state)
        says = summary(client, sweep)["says"]
        assert len(says) == 3
        refused = client.get(f"/v1/sweeps/{sweep}/recommendation")
        assert refused.status_code == 404
        texts = {
            "page": client.get(f"/sweeps/{sweep}").text,
            "html": client.get(f"/v1/sweeps/{sweep}/report").text,
            "markdown": client.get(f"/v1/sweeps/{sweep}/report", params={"format": "markdown"}).text.replace("\\", ""),
            "refused": refused.json()["detail"],
        }
        for place, text in texts.items():
            for line in says:
                assert line[1:] in html.unescape(text), (place, line)
        assert client.get(f"/v1/sweeps/{sweep}/report", params={"format": "json"}).json()["unrecommended"]["loosened"]


def test_what_cannot_be_judged_is_counted_apart_and_loosened_by_its_noise(
    client: TestClient, services: Services
) -> None:
    def fill(session: Session) -> str:
        sweep = add_sweep(session, document={"constraints": [LATENCY]}, state="completed")
        for number, (latency, high) in enumerate(((1.5, 1.6), (0.99, 1.25), (2.0, 2.0))):
            figure = {"low": 0.9, "high": high, "processes": 4, "spread": 0.1, "known": high == latency}
            undecided = [LATENCY] if latency < 1 else []
            known: dict[str, Any] = {"violations": {LATENCY: latency - 1}, "feasible": None if undecided else False}
            known["noise"] = {"figures": {"latency_ms_p99": figure}, "undecided": undecided}
            add_trial(session, sweep, number, {"latency_ms_p50": 1.0, "latency_ms_p99": latency}, **known)
        return sweep.id

    found = summary(client, services.database.write(fill))
    assert (found["judged"], found["not_judged"], found["feasible"]) == (2, 1, 0)
    assert found["says"] == [
        "2 of 2 trials broke latency_ms_p99 <= 1; the nearest, trial 0, by 0.5 ms as measured, but the interval of "
        "trial 0 reaches to 1.6 ms; 1 more trial cannot be judged by it",
        "for 1 feasible trial allow latency_ms_p99 <= 1.25 (trial 1): a limit has to hold with the noise, and the "
        "interval of trial 1 reaches to 1.250 ms",
        "for 3 feasible trials allow latency_ms_p99 <= 2 (trials 1, 0 and 2)",
    ]
