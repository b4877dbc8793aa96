"""What the page and the report of a sweep say of its pruner."""

from __future__ import annotations

import pytest

from service.database.models import Trial
from service.database.pruning_models import PruningDecision
from tests.service.pages import page
from tests.service.sweep_rows import TARGET, add_attempt, add_sweep, add_trial, add_worker, rank


def _decide(session, trial: Trial, verdict: str) -> None:
    session.add(
        PruningDecision(
            trial_id=trial.id,
            attempt=trial.attempt,
            rung=2,
            sweep_id=trial.sweep_id,
            sequence=1,
            model_version=1,
            step=30,
            steps=90,
            shown="validation_loss",
            loss=2.9,
            known={"latency_ms_p50": trial.metrics["latency_ms_p50"]},
            finished=10,
            predicted=2.0,
            spread=0.05,
            chance=0.02,
            verdict=verdict,
            reason="by a test",
        )
    )


def _fill(session, complete: int) -> str:
    """A sweep with one trial that was stopped after a third of its steps, and some that were not."""
    worker = add_worker(session, "worker")
    chosen = {"pruner": "pareto", "pruner_reason": "it is asked for"}
    sweep = add_sweep(session, target=TARGET, target_key=TARGET["key"], **chosen)
    trials = [
        add_trial(session, sweep, number, {"latency_ms_p50": 1.0 + number, "validation_loss": 2.0 - number / 10})
        for number in range(complete)
    ]
    stopped = add_trial(session, sweep, complete, {"latency_ms_p50": 9.0}, state="pruned", feasible=None)
    for trial in (*trials, stopped):
        add_attempt(session, trial, worker)
        session.flush()
        _decide(session, trial, "prune" if trial is stopped else "spare")
    rank(session, sweep, trials)
    return sweep.id


def test_the_page_and_the_answer_say_what_was_stopped_and_may_be_lost(client, services) -> None:
    sweep = services.database.write(lambda session: _fill(session, 2))
    shown = client.get(f"/v1/sweeps/{sweep}").json()["pruning"]
    assert (shown["pruner"], shown["judged"], shown["pruned"]) == ("pareto", 3, 1)
    assert (shown["spared"], shown["spared_on_front"]) == (2, 2)
    # Two standard deviations above the best that is as fast.
    assert shown["expected_front_loss"] == pytest.approx(0.0113, abs=0.0002)
    text = page(client, f"/sweeps/{sweep}")
    assert "stopped 1 of 3 trainings, which saved 22% of their steps" in text
    assert "2 trials more went on to show what that loses: 2 came to the front" in text


def test_a_stopped_trial_has_a_button_that_trains_it_to_its_end(client, services) -> None:
    sweep = services.database.write(lambda session: _fill(session, 1))
    complete, stopped = (each["id"] for each in client.get(f"/v1/sweeps/{sweep}/trials").json()["items"])
    button = f'data-api="/v1/trials/{stopped}:promote"'
    assert button in page(client, f"/trials/{stopped}")
    assert ":promote" not in page(client, f"/trials/{complete}")
    assert client.post(f"/v1/trials/{complete}:promote").status_code == 409
    assert client.post("/v1/trials/nothing:promote").status_code == 404
    promoted = client.post(f"/v1/trials/{stopped}:promote")
    assert (promoted.status_code, promoted.json()["promoted"]) == (200, True)
    assert client.post(f"/v1/trials/{stopped}:promote").status_code == 200
    text = page(client, f"/trials/{stopped}")
    assert button not in text
    assert "trained to its end all the same" in text


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_the_report_says_what_was_stopped(client, services, form: str) -> None:
    sweep = services.database.write(lambda session: _fill(session, 0))
    report = client.get(f"/v1/sweeps/{sweep}/report", params={"format": form}).text
    assert "stopped 1 of 1 training, which saved 67% of their steps" in report
