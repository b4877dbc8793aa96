"""`kill -9` of any process loses no finished trial and counts none twice."""

from typing import Any

import pytest

from tests.acceptance.deployment import Deployment


def _ended(event: dict[str, Any]) -> bool:
    return event["kind"] == "trial.ended"


# In `make test` each on one database, in `make test-slow` on the other.
@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
def test_a_killed_worker_s_trial_is_finished_by_another_as_attempt_2(
    deployment: Deployment, small_sweep: dict[str, Any]
) -> None:
    small_sweep["budget"] = {"trials": 1, "parallel": 1}
    small_sweep["training"] = small_sweep["training"] | {"steps": 400, "learning_rate": 1e-3}
    deployment.start_service()
    sweep = deployment.submit(small_sweep)
    first = deployment.start_brief_worker("first")
    in_training = deployment.events(sweep, until=lambda event: event["kind"] == "trial.report")
    trial = in_training[-1]["trial"]
    deployment.kill(first)

    deployment.start_brief_worker("second")
    ended = deployment.finish_sweep(sweep)

    assert ended["progress"]["complete"] == 1, deployment.log("second")
    detail = deployment.get(f"/v1/trials/{trial}")
    assert detail["attempt"] == 2
    assert [attempt["outcome"] for attempt in detail["attempts"]] == ["lost", "complete"]
    late = deployment.http.post(
        f"/v1/leases/{trial}/1:finish", json={"outcome": "complete", "metrics": {"validation_loss": 0.1}}
    )
    assert late.status_code == 409
    assert late.json()["type"].endswith("lease-lost")
    assert deployment.get(f"/v1/trials/{trial}")["metrics"] == detail["metrics"]


@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.slow), "postgresql"], indirect=True)
def test_a_killed_service_goes_on_after_its_restart(deployment: Deployment, small_sweep: dict[str, Any]) -> None:
    service = deployment.start_service()
    sweep = deployment.submit(small_sweep)
    deployment.start_brief_worker()
    deployment.events(sweep, until=_ended)
    finished = [trial for trial in deployment.trials(sweep) if trial["state"] == "complete"]
    deployment.kill(service)

    deployment.start_service()
    ended = deployment.finish_sweep(sweep)

    assert (ended["state"], ended["reason"]) == ("completed", "budget_exhausted")
    trials = deployment.trials(sweep)
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    for before in finished:
        assert trials[before["number"]]["metrics"] == before["metrics"]
    events = deployment.events(sweep, until=lambda event: event["sequence"] == ended["version"])
    assert [event["sequence"] for event in events] == list(range(1, ended["version"] + 1))
    told = [event["trial"] for event in events if _ended(event)]
    assert sorted(told) == sorted(trial["id"] for trial in trials)
