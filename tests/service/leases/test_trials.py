"""Trials as callers read them."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.common.states import SweepKind
from service.database.models import Sweep, Trial
from service.leases import trials
from tests.service.rows import Rows


@pytest.fixture
def finished(client: TestClient, served_rows: Rows) -> tuple[str, str]:
    """A sweep of three trials of which the first is complete; the ids of both."""
    sweep = served_rows.sweep(3)
    lease = client.post("/v1/leases", json={"worker": served_rows.worker()}).json()
    path = f"/v1/leases/{lease['trial']}/1"
    client.post(f"{path}:report", json={"phase": "build", "log": "building", "losses": [{"step": 1, "tokens": 5}]})
    body = {
        "outcome": "complete",
        "metrics": {"latency_ms_p50": 1.5},
        "measurements": {"environment": {"threads": 1}},
        "log": "done",
    }
    assert client.post(f"{path}:finish", json=body).status_code == 200
    return sweep, lease["trial"]


def test_a_trial_shows_all_that_was_learnt_of_it(client: TestClient, finished: tuple[str, str]) -> None:
    sweep, trial = finished
    detail = client.get(f"/v1/trials/{trial}").json()
    assert (detail["sweep"], detail["number"], detail["state"], detail["feasible"]) == (sweep, 0, "complete", True)
    assert detail["metrics"] == {"latency_ms_p50": 1.5}
    assert detail["measurements"] == {"environment": {"threads": 1}}
    assert detail["configuration"]["model"]["hidden_size"] == 64
    (attempt,) = detail["attempts"]
    assert (attempt["outcome"], attempt["log"]) == ("complete", "building\ndone")
    assert [phase["phase"] for phase in attempt["phases"]] == ["build"]
    assert detail["curve"] == [
        {
            "step": 1,
            "tokens": 5,
            "training_loss": None,
            "validation_loss": None,
            "learning_rate": None,
            "seconds": None,
        }
    ]
    assert detail["created_at"].endswith("Z")
    assert client.get(f"/v1/sweeps/{sweep}/trials/0").json() == detail


def test_a_reused_trial_shows_the_measurements_that_it_stands_on(
    client: TestClient, served_rows: Rows, finished: tuple[str, str]
) -> None:
    _, original = finished
    (copy,) = served_rows.queue(served_rows.sweep(0), 1)
    served_rows.update(Trial, copy, state="complete", reused_from=original, metrics={"latency_ms_p50": 1.5})
    detail = client.get(f"/v1/trials/{copy}").json()
    assert detail["reused_from"] == original
    assert detail["measurements"] == {"environment": {"threads": 1}}
    assert [attempt["outcome"] for attempt in detail["attempts"]] == ["complete"]


def test_the_phase_that_runs_has_a_time(client: TestClient, served_rows: Rows) -> None:
    served_rows.sweep(1)
    lease = client.post("/v1/leases", json={"worker": served_rows.worker()}).json()
    client.post(f"/v1/leases/{lease['trial']}/1:report", json={"phase": "train", "progress": {"step": 3}})
    detail = client.get(f"/v1/trials/{lease['trial']}").json()
    assert (detail["phase"], detail["progress"]) == ("train", {"step": 3})
    assert detail["attempts"][0]["phases"][0]["seconds"] >= 0


def test_pages_follow_the_numbers(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(5)
    url: str | None = f"/v1/sweeps/{sweep}/trials?page_size=2"
    pages: list[list[int]] = []
    while url:
        answer = client.get(url)
        pages.append([trial["number"] for trial in answer.json()["items"]])
        url = answer.links.get("next", {}).get("url")
    assert pages == [[0, 1], [2, 3], [4]]


def test_trials_are_filtered_by_state(client: TestClient, finished: tuple[str, str]) -> None:
    sweep, _ = finished
    queued = client.get(f"/v1/sweeps/{sweep}/trials?state=queued").json()["items"]
    assert [trial["number"] for trial in queued] == [1, 2]
    both = client.get(f"/v1/sweeps/{sweep}/trials?state=queued&state=complete").json()["items"]
    assert [trial["number"] for trial in both] == [0, 1, 2]
    assert client.get(f"/v1/sweeps/{sweep}/trials?state=lost").status_code == 422


def test_a_token_of_another_list_is_refused(client: TestClient, served_rows: Rows) -> None:
    for _ in range(2):
        served_rows.worker()
    token = client.get("/v1/workers?page_size=1").json()["next_page_token"]
    assert client.get(f"/v1/sweeps/{served_rows.sweep(1)}/trials?page_token={token}").status_code == 422


def test_the_reference_of_a_trial_names_it_and_no_other(rows: Rows) -> None:
    older, newer, confirmation = rows.sweep(1), rows.sweep(1), rows.sweep(1)
    rows.update(Sweep, confirmation, sampler=SweepKind.CONFIRMATION)

    def check(session: Session) -> None:
        for sweep, expected in ((older, f"{older}/0"), (newer, "sweep/0"), (confirmation, f"{confirmation}/0")):
            trial = trials.get_by_number(session, sweep, 0)
            assert trials.reference_of(session, trial) == expected
            assert trials.find_by_reference(session, expected, trial.project) == trial.id

    rows.database.read(check)


def test_a_reference_finds_no_trial_of_another_project(rows: Rows) -> None:
    sweep = rows.sweep(1)
    rows.update(Sweep, sweep, project="theirs")

    def check(session: Session) -> None:
        for reference in ("sweep/0", f"{sweep}/0"):
            assert trials.find_by_reference(session, reference, "default") is None
            assert trials.find_by_reference(session, reference, "theirs") is not None

    rows.database.read(check)


def test_a_trial_s_page_calls_it_what_start_from_finds(client: TestClient, served_rows: Rows) -> None:
    older, _newer = served_rows.sweep(1), served_rows.sweep(1)
    trial = client.get(f"/v1/sweeps/{older}/trials").json()["items"][0]["id"]
    assert f">{older}/0</code>" in client.get(f"/trials/{trial}").text
