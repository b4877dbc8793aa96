"""What Prometheus is told: the format, the figures, who may ask, and that it costs the same at any number of trials."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service.auth import projects, tokens
from service.common.states import OPEN_TRIALS
from service.database.access_models import Webhook, WebhookDelivery
from service.database.models import Event, Sweep
from service.database.sessions import Database
from service.events import events, webhooks
from service.http.dependencies import Services
from service.leases import holders, queue
from service.leases import schemas as lease_schemas
from service.operations import gauges
from service.settings import Settings
from tests.service.rows import Rows
from tests.service.statements import recorded_statements
from tests.service.sweep_driver import Driver, small

BOTH = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """An SQLite file; for what is marked with `BOTH`, PostgreSQL too."""
    kind = getattr(request, "param", "sqlite")
    return request.getfixturevalue("postgres_url" if kind == "postgresql" else "migrated_sqlite_url")


def scraped(client: TestClient, **headers: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of a scrape: name and labels -> value."""
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_scrape_tells_of_the_queue_the_phases_and_the_requests(client: TestClient, served_rows: Rows) -> None:
    before = scraped(client)
    sweep = served_rows.sweep(queued=3)
    worker = served_rows.worker()
    lease = client.post("/v1/leases", json={"worker": worker}).json()
    at = f"/v1/leases/{lease['trial']}/1"
    client.post(f"{at}:report", json={"phase": "check"})
    client.post(f"{at}:report", json={"phase": "build"})
    after = scraped(client)

    def more(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0.0)

    assert more("layersweep_trials", state="queued") == 2
    assert more("layersweep_trials", state="running") == 1
    assert more("layersweep_sweeps", state="active") == 1
    assert more("layersweep_queue_depth") == 2
    assert more("layersweep_leases") == 1
    assert more("layersweep_leases_lapsed") == 0
    assert more("layersweep_workers_alive") == 1
    assert (more("layersweep_worker_slots"), more("layersweep_worker_slots_busy")) == (64, 1)
    assert more("layersweep_phase_seconds_count", phase="check") == 1
    report = {"method": "POST", "route": "/v1/leases/{trial}/{attempt}:report"}
    assert more("layersweep_http_requests_total", status="200", **report) == 2
    assert more("layersweep_http_request_seconds_count", **report) == 2
    assert more("layersweep_group_commit_writes_total") > 0
    assert after["layersweep_http_requests_running", ()] >= 1, "this scrape"

    served_rows.lapse(lease["trial"])
    assert scraped(client)["layersweep_leases_lapsed", ()] == 1
    client.post(f"/v1/sweeps/{sweep}:pause")
    last = scraped(client)
    assert last["layersweep_leases_lapsed", ()] == 0, "nobody is to take over what is paused"
    assert last["layersweep_queue_depth", ()] == 0, "nobody may claim what is paused"


def test_only_what_a_scheduler_must_act_on_waits_for_it(database: Database, settings: Settings) -> None:
    def waiting() -> tuple[int, bool]:
        found = database.read(lambda session: gauges.read_figures(session, 60))
        return found.unscheduled, found.unscheduled_seconds > 0

    driver = Driver(database, settings)
    driver.add_dataset()
    driver.add_worker()
    sweep = driver.post(small(search={"sampler": "random", "reuse": True}))
    driver.step(sweep)
    lease = driver.claim()
    assert lease is not None
    for phase in ("check", "build", "measure"):
        report = lease_schemas.LeaseReport(phase=phase)
        database.write(lambda session, report=report: holders.report(session, lease.trial, 1, report, 30).action)
    assert driver.sweep(sweep).event_counter > driver.sweep(sweep).scheduled_sequence
    assert waiting() == (0, False), "a healthy trial runs"
    driver.finish(lease)
    database.write(lambda session: session.execute(sa.update(Event).values(created_at=1.0)).close())
    assert waiting() == (1, True)
    driver.step(sweep)
    assert waiting() == (0, False)
    again = driver.post(small(search={"sampler": "random", "reuse": True}))
    driver.step(again)
    assert any(trial.reused_from for trial in driver.trials(again)), "its ending is no news to the scheduler"
    assert waiting() == (0, False)


def test_an_ending_that_nothing_comes_of_does_not_wait(database: Database, settings: Settings) -> None:
    driver = Driver(database, settings)
    driver.add_dataset()
    driver.add_worker()
    sweep = driver.post(small())
    driver.run(sweep, 1)
    trial = next(trial for trial in driver.trials(sweep) if trial.state not in OPEN_TRIALS)
    ended = next(event for event in driver.events(sweep) if event.kind == "trial.ended")
    database.write(lambda session: events.append(session, sweep, "trial.ended", data=ended.data, trial_id=trial.id))
    assert database.read(lambda session: gauges.read_figures(session, 60)).unscheduled == 1
    driver.step(sweep)
    assert database.read(lambda session: gauges.read_figures(session, 60)).unscheduled == 0


def test_nothing_waits_for_a_webhook_that_is_disabled(database: Database) -> None:
    def make(session: Any) -> str:
        made = webhooks.create(
            session, project="default", url="https://example.com/", events=["sweep.failed"], made_by="", allowed=()
        )
        webhooks.ping(session, made.id)
        session.execute(sa.update(WebhookDelivery).values(created_at=1.0))
        return made.id

    webhook = database.write(make)
    found = database.read(lambda session: gauges.read_figures(session, 60))
    assert (found.deliveries, found.deliveries_seconds > 0) == (1, True)
    disabled = sa.update(Webhook).where(Webhook.id == webhook).values(enabled=False)
    database.write(lambda session: session.execute(disabled).close())
    found = database.read(lambda session: gauges.read_figures(session, 60))
    assert (found.deliveries, found.deliveries_seconds) == (0, 0.0)


def test_labels_do_not_grow_with_what_callers_send(client: TestClient) -> None:
    client.get("/v1/sweeps/first")
    before = set(scraped(client))
    for number in range(20):
        client.get(f"/v1/sweeps/unknown-{number}")
        client.get(f"/no/such/page/{number}")
    client.request("BREW", "/v1/sweeps")
    new = {labels for name, labels in set(scraped(client)) - before if name == "layersweep_http_requests_total"}
    assert len(new) <= 3, new
    assert not any("unknown" in str(labels) or "BREW" in str(labels) for labels in new)


def test_metrics_take_a_token_that_reads_all_projects(client: TestClient, services: Services) -> None:
    def make(session: Any, scope: Any, project: str | None) -> str:
        return "Bearer " + tokens.create(session, tokens.NewToken("x", [scope], project), made_by="")[1]

    services.database.write(lambda session: projects.create(session, "vision").name)
    reader, bound, worker = (
        services.database.write(lambda session, given=given: make(session, *given))
        for given in (("read", None), ("read", "vision"), ("work", None))
    )
    services.access.forget()
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": bound}).status_code == 403
    assert client.get("/metrics", headers={"Authorization": worker}).status_code == 403
    assert scraped(client, Authorization=reader)["layersweep_queue_depth", ()] == 0


@BOTH
def test_a_look_at_the_database_reads_no_finished_trial(database: Database, rows: Rows) -> None:
    sweep = rows.sweep(queued=1)
    worker = rows.worker()
    lease = database.write(lambda session: queue.claim(session, worker, 30))
    assert lease is not None
    done = lease_schemas.LeaseFinish(outcome="failed", reason="a test")
    database.write(lambda session: holders.finish(session, lease.trial, 1, done).id)
    counted = sa.update(Sweep).where(Sweep.id == sweep).values(counts={"complete": 99_999, "failed": 1})
    database.write(lambda session: session.execute(counted).rowcount)
    with recorded_statements() as statements:
        found = database.read(lambda session: gauges.read_figures(session, 60))
    assert (found.trials["complete"], found.trials["failed"], found.workers) == (99_999, 1, 1)
    of_trials = [statement for statement in statements if "FROM trials" in statement]
    assert len(of_trials) == 2
    if database.dialect == "sqlite":
        for statement in of_trials:
            with database.engine.connect() as connection:
                plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement.replace('?', '1')}").all())
            assert "ix_trials_running" in plan
