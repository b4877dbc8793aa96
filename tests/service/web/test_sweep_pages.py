"""The comparison, the editor, and what a sweep's page says of its confirmation."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.database.models import Attempt, Event, Sweep
from service.database.sessions import now
from service.events import events
from service.fleet import quotas
from service.http.dependencies import Services
from service.leases import queue
from service.sweeps import drafts, estimates
from service.sweeps.documents import read
from service.sweeps.progress import progress_rate
from tests.service.pages import page
from tests.service.rows import Rows
from tests.service.sweep_rows import add_sweep, add_trial, add_worker, complete_configuration, rank

DOCUMENT = """\
name: written
task: probe
model:
  hidden_size: {values: [64, 128]}
  attention: {num_attention_heads: {values: [2, 4]}}
inference: {batch_size: 1, sequence_length: 16}
objectives: [{metric: latency_ms_p50, goal: minimize}]
budget: {trials: 4}
"""


@pytest.fixture
def compared(client: TestClient, services: Services):
    """A sweep of four trials that differ in their layers."""

    def fill(session: Session):
        sweep = add_sweep(session)
        trials = [
            add_trial(
                session,
                sweep,
                number,
                {"latency_ms_p50": 2.0 + number, "validation_loss": 3.0 - number, "parameter_count": 1000.0},
                parameters={"num_layers": number + 1},
                configuration=complete_configuration(number + 1),
            )
            for number in range(4)
        ]
        rank(session, sweep, trials)
        return sweep.id

    return f"/sweeps/{services.database.write(fill)}/compare"


def checked(client: TestClient, text: str) -> str:
    answer = client.post("/new/check", data={"document": text})
    assert answer.status_code == 200
    return answer.text


def test_the_editor_is_filled_from_examples_presets_and_sweeps(
    client: TestClient, services: Services, compared: str
) -> None:
    assert "name: quickstart" in page(client, "/new")
    assert "name: digits" in page(client, "/new?from=example:digits")
    preset = page(client, "/new?from=preset:nanogpt-char-cpu")
    assert "preset:nanogpt-char-cpu" in preset
    assert "karpathy/nanoGPT" in preset
    assert not re.search(r"0\.\d{8}", preset), "no bound has the digits of a division"
    sweep = compared.split("/")[2]
    assert f'<option value="sweep:{sweep}" selected>' in page(client, f"/new?from=sweep:{sweep}")
    for nothing in ("example:../pyproject", "preset:none", "sweep:none", "none"):
        assert "Not found" in page(client, "/new", status=404, **{"from": nothing})


def test_a_clone_begins_with_the_text_that_was_posted(client: TestClient) -> None:
    text = "# why this sweep\n" + DOCUMENT.replace("[64, 128]}", "[64, 128]}  # what fits")
    posted = client.post("/v1/sweeps", content=text, headers={"Content-Type": "application/yaml"}).json()["id"]
    cloned = client.post(f"/v1/sweeps/{posted}:clone").json()["id"]
    for sweep in (posted, cloned):
        assert text in html.unescape(page(client, f"/new?from=sweep:{sweep}"))


def test_a_trial_that_trains_shows_what_was_measured_of_it_before(client: TestClient, services: Services) -> None:
    def fill(session: Session) -> str:
        sweep = add_sweep(session)
        worker = add_worker(session, "busy").id
        trial = add_trial(session, sweep, 0, state="running", attempt=1, worker_id=worker, phase="train")
        early = {"latency_ms_p50": 0.1441, "parameter_count": 1000.0, "latency_ms_p99": 9.0}
        row = Attempt(trial_id=trial.id, attempt=1, worker_id=worker, started_at=now(session), early_metrics=early)
        session.add(row)
        return sweep.id

    shown = page(client, f"/sweeps/{services.database.write(fill)}")
    assert "latency p50 0.1441 ms" in shown.partition("Running now")[2].partition("</ul>")[0]


def test_a_sweep_that_its_project_s_quota_holds_says_so_as_the_api_does(
    client: TestClient, services: Services, served_rows: Rows
) -> None:
    held, worker = served_rows.sweep(queued=2), served_rows.worker(slots=8)
    served_rows.update(Sweep, held, priority=-1)
    served_rows.sweep(queued=1)
    assert "Between two trials" in page(client, f"/sweeps/{held}", part="sweep-live")
    services.database.write(lambda session: quotas.change(session, "default", {"max_running_trials": 1}).name)
    services.database.write(lambda session: queue.claim(session, worker, 30))
    reason = client.get(f"/v1/sweeps/{held}").json()["waiting"]["reason"]
    assert reason == "1 trial at once is the quota of the project default, and as many run"
    shown = page(client, f"/sweeps/{held}", part="sweep-live")
    assert f"No trial runs: {reason}." in shown
    assert 'data-poll="progress"' in shown, "no event of this sweep says that the reason is another one"


@pytest.mark.slow
def test_what_each_preset_and_example_fills_in_is_accepted_or_says_what_it_lacks(client: TestClient) -> None:
    text = page(client, "/new")
    beginnings = re.findall(r'<option value="((?:example|preset):[^"]+)"', text)
    assert len(beginnings) > 4
    for beginning in beginnings:
        filled = page(client, "/new", **{"from": beginning})
        (document,) = re.findall(r"<textarea[^>]*>\n(.*?)</textarea>", filled, re.DOTALL)
        said = checked(client, html.unescape(document))
        assert "Ready to run" in said or "/dataset" in said, beginning


def test_a_document_is_checked_as_one_types(client: TestClient) -> None:
    good = checked(client, DOCUMENT)
    assert "Ready to run" in good
    assert "<dt>points</dt><dd>4</dd>" in good
    assert "<dt>keep the rules</dt><dd>100%</dd>" in good
    assert "no three comparable trials" in good, "why there is no estimate"
    wrong = checked(client, DOCUMENT.replace("{values: [64, 128]}", "wide"))
    assert "<code>/model/hidden_size</code>" in wrong
    assert 'data-go="4"' in wrong, "the line of it"
    assert "Not yet" in checked(client, "name: [")
    assert "Not yet" in checked(client, "")
    assert "<script>" not in checked(client, DOCUMENT.replace("written", "<script>"))


def test_nothing_is_stored_by_a_check(client: TestClient) -> None:
    checked(client, DOCUMENT)
    assert client.get("/v1/sweeps").json()["items"] == []


def test_the_cost_is_estimated_from_earlier_trials_of_the_task(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = drafts.prepare(services.database, read(DOCUMENT.encode(), "application/yaml", max_bytes=10_000))

    def estimate():
        return services.database.read(lambda session: estimates.estimate(session, prepared, alive_seconds=90))

    assert estimate() is None

    def fill(session: Session):
        sweep = add_sweep(session, task="probe")
        for number in range(3):
            configuration = {"inference": {"batch_size": 1, "sequence_length": 16}, "training": {}}
            metrics = {"flops": 1e6, "device_seconds": 5.0}
            executed: dict[str, Any] = {
                "configuration": configuration,
                "attempt": 1,
                "target_key": "onnxruntime 1 on CPU",
            }
            add_trial(session, sweep, number, metrics, **executed)

    services.database.write(fill)
    found = estimate()
    assert found is not None
    assert (found.from_trials, found.target) == (3, "onnxruntime 1 on CPU")
    assert found.trial_seconds == pytest.approx(5.0)
    assert found.device_seconds == pytest.approx(20.0)
    headers = {"Content-Type": "application/yaml"}
    answer = client.post("/v1/sweeps?validate_only=true", content=DOCUMENT, headers=headers)
    assert answer.json()["estimate"]["device_seconds"] == pytest.approx(20.0)

    assert found.from_points == estimates.POINTS
    monkeypatch.setattr(estimates, "SECONDS", 0.0)
    found = estimate()
    assert found is not None
    assert found.from_points == estimates.FEWEST_POINTS, "it takes no longer than it may"
    assert "Time: about 5 s a trial, 20 s for 4 trials" in checked(client, DOCUMENT)


def test_an_estimate_keeps_to_the_budget_of_time(client: TestClient, services: Services) -> None:
    def fill(session: Session):
        sweep = add_sweep(session, task="probe")
        configuration = {"inference": {"batch_size": 1, "sequence_length": 16}, "training": {}}
        for number in range(3):
            metrics = {"flops": 1e6, "device_seconds": 5.0}
            add_trial(
                session, sweep, number, metrics, configuration=configuration, attempt=1, target_key="onnxruntime 1"
            )

    services.database.write(fill)
    document = DOCUMENT.replace("trials: 4", "trials: 4, parallel: 1, wall_seconds: 12")
    answer = client.post(
        "/v1/sweeps?validate_only=true", content=document, headers={"Content-Type": "application/yaml"}
    )
    found = answer.json()["estimate"]
    assert (found["wall_seconds"], found["trials"]) == (pytest.approx(12.0), 2)
    assert "about 2 of 4 trials within the budget of time (12 s)" in checked(client, document)


def test_the_pace_is_of_the_last_trials_and_says_what_is_left(services: Services, client: TestClient) -> None:
    def fill(session: Session):
        sweep = add_sweep(session, counts={"complete": 5})
        for number in range(5):
            sequence = events.append(session, sweep.id, "trial.ended", data={"number": number})
            at = sa.update(Event).where(Event.sweep_id == sweep.id, Event.sequence == sequence)
            session.execute(at.values(created_at=1000.0 + 10 * number))
        return sweep.id

    sweep = services.database.write(fill)
    found = services.database.read(lambda session: progress_rate(session, session.get_one(Sweep, sweep)))
    assert found is not None
    assert found.per_second == pytest.approx(0.1)
    assert found.seconds_left == pytest.approx(150.0), "fifteen of twenty are left"
    assert "6 a minute" in page(client, f"/sweeps/{sweep}")

    def limit(session: Session) -> None:
        row = session.get_one(Sweep, sweep)
        row.started_at, row.budget = now(session) - 40, {**row.budget, "wall_seconds": 100}

    services.database.write(limit)
    found = services.database.read(lambda session: progress_rate(session, session.get_one(Sweep, sweep)))
    assert found is not None
    assert 0 < found.seconds_left <= 60, "the budget of time ends before the trials do"
    assert "of 1 min 40 s allowed" in page(client, f"/sweeps/{sweep}")


def test_the_page_of_workers_says_what_each_does_now(client: TestClient, services: Services) -> None:
    def fill(session: Session):
        worker, _ = add_worker(session, "busy"), add_worker(session, "free")
        sweep = add_sweep(session, name="the work")
        trial = add_trial(
            session,
            sweep,
            3,
            state="running",
            phase="train",
            progress={"step": 10, "steps": 40, "waiting_for": "a measurement on this device"},
            attempt=1,
            worker_id=worker.id,
        )
        session.flush()
        session.add(Attempt(trial_id=trial.id, attempt=1, worker_id=worker.id, started_at=now(session)))

    services.database.write(fill)
    text = page(client, "/workers")
    assert re.search(
        r'trial 3</a> of <a href="/sweeps/[^"]+">the work</a> <span [^>]+>train, step 10 of 40, begun .+, waiting for',
        text,
    )
    assert "waits for a trial" in text


def test_a_sweep_that_has_ended_offers_to_be_confirmed_where_it_can_be(
    client: TestClient, services: Services, compared: str
) -> None:
    path = compared.removesuffix("/compare")
    assert "When the sweep has ended." in page(client, path)
    services.database.write(lambda session: setattr(session.get(Sweep, path.split("/")[2]), "state", "completed"))
    assert "No test split: add the data again with" in page(client, path)


def test_what_a_sweep_starts_from_is_said_wherever_it_is_shown(client: TestClient, services: Services) -> None:
    def add(session: Session, transfer: Any):
        return add_sweep(session, transfer=transfer, target_key="a target").id

    known = services.database.write(lambda session: add(session, {"trials": 212, "sweeps": ["A", "B"]}))
    alone = services.database.write(lambda session: add(session, None))
    assert client.get(f"/v1/sweeps/{known}").json()["transfer"] == {"trials": 212, "sweeps": ["A", "B"]}
    assert client.get(f"/v1/sweeps/{alone}").json().get("transfer") is None
    for path in ("/sweeps/{}", "/v1/sweeps/{}/report?format=html", "/v1/sweeps/{}/report?format=markdown"):
        assert "starts from 212 trials of 2 earlier sweeps" in client.get(path.format(known)).text
        assert "earlier sweep" not in client.get(path.format(alone)).text
