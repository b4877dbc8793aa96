"""Where a trial's page leads, and what it folds away."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.database.json_columns import PredictedHardware
from service.http.dependencies import Services
from tests.service.pages import page
from tests.service.sweep_rows import DOCUMENT, add_sweep, add_trial, add_worker, rank


def fill(session: Session) -> tuple[str, list[str], str]:
    sweep = add_sweep(session)
    losses = (2.0, 1.0, 1.1, 1.5)
    trials = [
        add_trial(session, sweep, number, {"latency_ms_p50": 4.0 - number, "validation_loss": loss})
        for number, loss in enumerate(losses)
    ]
    seed = {"training.seed": 1}
    again = add_trial(session, sweep, -1, {"validation_loss": 1.1}, replicate_of=trials[1].id, parameters=seed)
    rank(session, sweep, trials)
    return sweep.id, [trial.id for trial in trials], again.id


def test_a_trial_leads_to_its_neighbours_and_to_the_recommended_one(client: TestClient, services: Services) -> None:
    sweep, trials, again = services.database.write(fill)
    first = page(client, f"/trials/{trials[0]}")
    assert 'rel="prev"' not in first
    assert f'<a rel="next" href="/trials/{trials[1]}">' in first
    assert f'<a href="/trials/{trials[2]}">' in first
    assert f'href="/sweeps/{sweep}/compare?trial=2&amp;trial=0"' in first
    assert "+100% <span" in first, "of latency, against the recommended one"
    best = page(client, f"/trials/{trials[2]}")
    assert f'<a rel="prev" href="/trials/{trials[1]}">' in best
    assert "Compare with it" not in best
    assert "recommended</span>" in best
    assert not re.search(r'rel="(prev|next)"', page(client, f"/trials/{again}"))


def test_what_was_predicted_in_place_of_a_build_is_no_metric(client: TestClient, services: Services) -> None:
    predicted: PredictedHardware = {
        "figures": {"latency_ms_p99": {"median": 0.22, "low": 0.21, "high": 0.24}},
        "reason": "no build is needed before its training: latency p99 is predicted at 0.21 ms to 0.24 ms",
    }

    def write(session: Session) -> tuple[str, str, str]:
        search = {"sampler": "random", "device_model": True}
        sweep = add_sweep(session, document=DOCUMENT | {"search": search})
        stopped = add_trial(session, sweep, 0, {}, state="pruned", feasible=None, predicted=predicted)
        wrong = add_trial(session, sweep, 1, {"latency_ms_p99": 5.0}, predicted=predicted)
        wrong.feasible, wrong.violations = False, {"latency_ms_p99 <= 4.0": 1.0}
        return sweep.id, stopped.id, wrong.id

    sweep, stopped, wrong = services.database.write(write)
    for trial, metrics in ((stopped, {}), (wrong, {"latency_ms_p99": 5.0})):
        assert "No build is needed before its training: latency p99" in page(client, f"/trials/{trial}")
        shown = client.get(f"/v1/trials/{trial}").json()
        assert (shown["metrics"], shown["predicted"]) == (metrics, predicted)
    assert client.get(f"/v1/sweeps/{sweep}").json()["spared_builds"] == {"trials": 2, "broken": 1}
    said = "spared 2 builds before a training, by what the device is predicted to take: 1 of them broke a limit after"
    assert said in page(client, f"/sweeps/{sweep}")
    for form in ("html", "markdown"):
        assert said in client.get(f"/v1/sweeps/{sweep}/report", params={"format": form}).text
    rows = client.get(f"/v1/sweeps/{sweep}/leaderboard").json()["items"]
    assert all(row["metrics"].get("latency_ms_p99") != 0.22 for row in rows)


def test_a_parameter_has_its_meaning_and_its_source_is_folded(client: TestClient, services: Services) -> None:
    _, trials, _ = services.database.write(fill)
    text = page(client, f"/trials/{trials[0]}")
    table = text[text.index("What this sweep varies") : text.index('<details id="sources">')]
    assert "blocks of attention and feed-forward" in table
    assert "arXiv" not in table
    assert "arXiv" in text


def test_the_versions_of_a_worker_are_folded(client: TestClient, services: Services) -> None:
    services.database.write(add_worker)
    text = page(client, "/workers")
    assert "<summary>versions</summary>" in text
    assert "<dt>onnxruntime</dt><dd>1.32.0</dd>" in text
