"""Builds that are judged: by their intervals, against what may be compared with them, and within a project."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.assertions import judgement
from service.assertions.judgement import judge
from service.assertions.schemas import Judgement, JudgementRequest
from service.auth import projects
from service.database.models import Sweep
from service.database.sessions import Database
from service.errors import BaselineMismatchError, NotFoundError
from service.http.dependencies import Services
from tests.service.sweep_rows import add_sweep, add_trial

CALM = [1.00, 1.01, 0.99, 1.005, 0.995]
NOISY = [0.8, 1.2, 1.0, 0.9, 1.1]
LIMIT = "latency_ms_p50 <= 1.02 * baseline"


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here: rows are only read."""
    return migrated_sqlite_url


def add_builds(session: Session, values: Sequence[float], *, target: str = "here", project: str = "default") -> Sweep:
    sweep = add_sweep(session, project=project)
    for number, value in enumerate(values):
        parameters = {"training.seed": number}
        add_trial(session, sweep, number, {"latency_ms_p50": value}, parameters=parameters, target_key=target)
    return sweep


def judged(session: Session, now: Sweep, before: Sweep) -> Judgement:
    return judge(session, now.id, JudgementRequest(limits=[LIMIT], against=before.id))


@pytest.mark.parametrize(
    ("factor", "values", "verdict"), [(1.0, CALM, "kept"), (1.1, CALM, "broken"), (1.0, NOISY, "undecided")]
)
def test_a_verdict_needs_the_whole_interval(
    database: Database, factor: float, values: list[float], verdict: str
) -> None:
    def read(session: Session) -> Judgement:
        now = add_builds(session, [factor * value for value in values])
        return judged(session, now, add_builds(session, values))

    found = database.write(read)
    assert found.verdict == verdict
    assert found.limits[0].change is not None
    assert found.limits[0].change.estimate == pytest.approx(factor - 1)
    assert found.measured.metrics["latency_ms_p50"].value == pytest.approx(factor * sorted(values)[2])


def test_others_write_while_builds_are_judged(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = services.database.write(lambda session: add_builds(session, CALM).id)
    begun, has_written = threading.Event(), threading.Event()

    def waiting(session: Session, sweep_id: str, asked: JudgementRequest) -> Judgement:
        begun.set()
        assert has_written.wait(20)
        return judge(session, sweep_id, asked)

    monkeypatch.setattr(judgement, "judge", waiting)
    body = {"limits": ["latency_ms_p50 <= 2"]}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, f"/v1/sweeps/{sweep}:judge", json=body, headers={"Idempotency-Key": "k"})
        assert begun.wait(20)
        services.database.write(lambda session: add_sweep(session, name="another"))
        has_written.set()
        assert answer.result(20).json()["verdict"] == "kept"
    assert client.post(f"/v1/sweeps/{sweep}:judge", json=body, headers={"Idempotency-Key": "k"}).status_code == 200


def test_what_cannot_be_compared_is_refused(database: Database) -> None:
    def elsewhere(session: Session) -> Judgement:
        return judged(session, add_builds(session, CALM), add_builds(session, CALM, target="elsewhere"))

    with pytest.raises(BaselineMismatchError, match="elsewhere") as error:
        database.write(elsewhere)
    assert [problem.pointer for problem in error.value.problems] == ["/against"]

    def of_another_project(session: Session) -> Judgement:
        projects.create(session, "other")
        return judged(session, add_builds(session, CALM), add_builds(session, CALM, project="other"))

    with pytest.raises(NotFoundError):
        database.write(of_another_project)
