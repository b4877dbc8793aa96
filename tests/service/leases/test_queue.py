"""Leases: one holder at a time, stale attempts are told so, nothing is lost and nothing counted twice."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.notifications import QUEUE
from service.database import counts
from service.database.models import Attempt, Event, Measurement, Report, Sweep, Trial, TrialMetric
from service.database.sessions import Database
from service.errors import LeaseLostError, NotFoundError, UnprocessableError
from service.leases import holders, queue, trials
from service.leases import schemas as lease_schemas
from service.leases.claiming import lapses, statements
from tests.service.rows import Rows, count_claimable
from tests.service.statements import recorded_statements

FINISH = lease_schemas.LeaseFinish(
    outcome="complete", metrics={"latency_ms_p50": 1.5}, measurements={"latency_samples_ms": {"samples": [1.5]}}
)
FAILED = lease_schemas.LeaseFinish(outcome="failed", reason="the engine does not build")


class Worker:
    """Calls the queue as a worker would, each call in a transaction of its own."""

    def __init__(self, rows: Rows, **capabilities: Any) -> None:
        self.database: Database = rows.database
        self.id: str = rows.worker(**capabilities)

    def claim(self) -> lease_schemas.Lease | None:
        return self.database.write(lambda session: queue.claim(session, self.id, 30))

    def must_claim(self) -> lease_schemas.Lease:
        lease = self.claim()
        assert lease is not None
        return lease

    def heartbeat(self, lease: lease_schemas.Lease) -> lease_schemas.Action:
        return self.database.write(lambda session: holders.heartbeat(session, lease.trial, lease.attempt, 30)).action

    def report(self, lease: lease_schemas.Lease, **body: Any) -> lease_schemas.Action:
        report = lease_schemas.LeaseReport(**body)
        return self.database.write(
            lambda session: holders.report(session, lease.trial, lease.attempt, report, 30)
        ).action

    def finish(self, lease: lease_schemas.Lease, body: lease_schemas.LeaseFinish = FINISH) -> lease_schemas.Trial:
        return self.database.write(lambda session: holders.finish(session, lease.trial, lease.attempt, body))

    def release(self, lease: lease_schemas.Lease, *, charge: bool = False) -> lease_schemas.Trial:
        body = lease_schemas.LeaseRelease(reason="the worker drains", charge=charge)
        return self.database.write(lambda session: holders.release(session, lease.trial, lease.attempt, body))


@pytest.fixture
def worker(rows: Rows) -> Worker:
    return Worker(rows)


def _attempts(database: Database, trial_id: str) -> list[Attempt]:
    statement = sa.select(Attempt).where(Attempt.trial_id == trial_id).order_by(Attempt.attempt)
    return list(database.read(lambda session: session.scalars(statement).all()))


def _assert_counted(rows: Rows, sweep_id: str) -> None:
    """The sweep's counts are those of its trials."""

    def count(session: Session) -> Counter[str]:
        return Counter(session.scalars(sa.select(Trial.state).where(Trial.sweep_id == sweep_id)).all())

    counted = rows.database.read(count)
    sweep = rows.find_sweep(sweep_id)
    assert {state: number for state, number in sweep.counts.items() if number} == dict(counted)
    assert sweep.running_count == counted["running"]


# --- claim -----------------------------------------------------------------------------------------------------------


def test_the_oldest_trial_is_claimed_and_says_all_that_a_worker_needs(rows: Rows, worker: Worker) -> None:
    first = rows.sweep(2, constraints=("latency_ms_p99 <= 2.0",))
    lease = worker.must_claim()
    assert (lease.sweep, lease.number, lease.attempt) == (first, 0, 1)
    assert lease.runtime == "onnxruntime"
    assert lease.configuration["model"]["hidden_size"] == 64
    assert lease.constraints == ["latency_ms_p99 <= 2.0"]
    assert lease.metrics_in_use == ["latency_ms_p50", "latency_ms_p99"]
    assert worker.must_claim().number == 1
    assert rows.find_sweep(first).started_at is not None
    assert rows.kinds(first)[-2:] == ["trial.running", "trial.running"]
    _assert_counted(rows, first)


def test_nothing_to_claim_is_no_error(rows: Rows, worker: Worker) -> None:
    assert worker.claim() is None


def test_an_unknown_worker_is_told_to_register(database: Database) -> None:
    with pytest.raises(NotFoundError, match="register"):
        database.write(lambda session: queue.claim(session, "nobody", 30))


@pytest.mark.parametrize("difference", [{"version": "9.9"}, {"device_model": "Other"}, {"build_only": True}])
def test_a_trial_is_for_its_target_only(rows: Rows, difference: dict[str, Any]) -> None:
    rows.sweep(1)
    other = Worker(rows, **difference)
    assert count_claimable(rows.database, other.id) == 0
    assert other.claim() is None


@pytest.mark.parametrize("state", ["paused", "completed", "cancelled", "failed"])
def test_only_active_sweeps_are_worked_on(rows: Rows, worker: Worker, state: str) -> None:
    rows.sweep(1, state=state)
    assert worker.claim() is None


def test_what_can_be_claimed_is_counted(rows: Rows, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.sweep(3, parallel=2)
    assert count_claimable(rows.database, worker.id) == 2
    worker.must_claim()
    rows.sweep(1)
    assert count_claimable(rows.database, worker.id) == 2
    lease = worker.must_claim()
    assert count_claimable(rows.database, worker.id) == 1
    monkeypatch.setattr(lapses, "LOOK_SECONDS", 0.0)
    rows.lapse(lease.trial)
    assert count_claimable(rows.database, worker.id) == 2


def test_concurrent_claims_never_share_a_trial(rows: Rows) -> None:
    sweep = rows.sweep(24)
    workers = [Worker(rows) for _ in range(8)]

    def take(worker: Worker) -> list[tuple[str, int]]:
        taken: list[tuple[str, int]] = []
        while (lease := worker.claim()) is not None:
            taken.append((lease.trial, lease.attempt))
        return taken

    with ThreadPoolExecutor(8) as threads:
        taken = [lease for leases in threads.map(take, workers) for lease in leases]
    assert len(taken) == len(set(taken)) == 24
    assert {attempt for _, attempt in taken} == {1}
    _assert_counted(rows, sweep)


def test_concurrent_claims_keep_the_parallel_limit(rows: Rows) -> None:
    limited, other = rows.sweep(20, parallel=3), rows.sweep(4)
    workers = [Worker(rows) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        leases = list(threads.map(Worker.claim, workers))
    # A claim beside others may come too late for what it saw, and is then given nothing: its worker asks again.
    leases = [lease or worker.claim() for lease, worker in zip(leases, workers, strict=True)]
    claimed = Counter(lease.sweep for lease in leases if lease is not None)
    assert claimed == {limited: 3, other: 4}
    assert leases.count(None) == 1
    _assert_counted(rows, limited)


def test_an_ended_trial_makes_room_under_the_limit(rows: Rows, worker: Worker) -> None:
    rows.sweep(2, parallel=1)
    lease = worker.must_claim()
    assert worker.claim() is None
    since = rows.database.notifications.version(QUEUE)
    worker.finish(lease)
    assert rows.database.notifications.version(QUEUE) > since
    assert worker.must_claim().number == 1


# --- lapsed leases ---------------------------------------------------------------------------------------------------


def test_a_lapsed_lease_is_another_attempt_and_the_first_is_told(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1, parallel=1)
    old = worker.must_claim()
    rows.lapse(old.trial)
    other = Worker(rows)
    new = other.must_claim()
    assert (new.trial, new.attempt) == (old.trial, 2)
    for call in (worker.heartbeat, worker.report, worker.finish, worker.release):
        with pytest.raises(LeaseLostError):
            call(old)
    assert other.heartbeat(new) == "continue"
    assert rows.trial(new.trial).charged_attempts == 1
    first, second = _attempts(rows.database, new.trial)
    assert (first.outcome, second.outcome) == ("lost", None)
    assert first.ended_at is not None
    _assert_counted(rows, sweep)


def test_a_lapsed_lease_that_nobody_took_is_still_held(rows: Rows, worker: Worker) -> None:
    rows.sweep(1)
    lease = worker.must_claim()
    rows.lapse(lease.trial)
    assert worker.heartbeat(lease) == "continue"
    assert worker.claim() is None
    assert worker.finish(lease).state == "complete"


@pytest.mark.parametrize("who", ["a claim", "the scheduler"])
def test_a_trial_whose_attempts_are_used_up_fails_with_that_reason(rows: Rows, worker: Worker, who: str) -> None:
    sweep = rows.sweep(1)
    for attempt in (1, 2, 3):
        lease = worker.must_claim()
        assert lease.attempt == attempt
        rows.lapse(lease.trial)
    if who == "a claim":
        assert worker.claim() is None
    else:
        assert rows.database.write(queue.expire) == 1
    trial = rows.trial(lease.trial)
    assert (trial.state, trial.charged_attempts) == ("failed", 3)
    assert "3 of at most 3 attempts" in (trial.reason or "")
    assert [attempt.outcome for attempt in _attempts(rows.database, trial.id)] == ["lost"] * 3
    assert rows.kinds(sweep)[-1] == "trial.ended"
    with pytest.raises(LeaseLostError):
        worker.finish(lease)
    _assert_counted(rows, sweep)


def test_expiry_leaves_running_and_retryable_trials_alone(rows: Rows, worker: Worker) -> None:
    rows.sweep(2)
    running, lapsed = worker.must_claim(), worker.must_claim()
    rows.lapse(lapsed.trial)
    assert rows.database.write(queue.expire) == 0
    assert rows.trial(running.trial).state == rows.trial(lapsed.trial).state == "running"


def test_lapsed_trials_of_an_ended_sweep_are_cancelled(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1)
    lease = worker.must_claim()
    rows.update(Sweep, sweep, state="completed")
    assert worker.heartbeat(lease) == "cancel"
    rows.lapse(lease.trial)
    assert rows.database.write(queue.expire) == 1
    assert rows.trial(lease.trial).state == "cancelled"
    _assert_counted(rows, sweep)


# --- heartbeat and report --------------------------------------------------------------------------------------------


def test_a_heartbeat_renews_the_lease(rows: Rows, worker: Worker) -> None:
    rows.sweep(1)
    lease = worker.must_claim()
    rows.lapse(lease.trial)
    worker.heartbeat(lease)
    assert (rows.trial(lease.trial).lease_expires_at or 0) > 1
    assert Worker(rows).claim() is None


def test_phases_follow_one_another_with_their_times(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1)
    lease = worker.must_claim()
    for phase in ("check", "build", "build", "measure"):
        assert worker.report(lease, phase=phase) == "continue"
    assert rows.trial(lease.trial).phase == "measure"
    worker.finish(lease)
    (attempt,) = _attempts(rows.database, lease.trial)
    assert [phase["phase"] for phase in attempt.phases] == ["check", "build", "measure"]
    starts = [phase["started_at"] for phase in attempt.phases]
    assert starts == sorted(starts)
    assert all(phase["seconds"] >= 0 for phase in attempt.phases)
    assert rows.kinds(sweep).count("trial.phase") == 3
    assert rows.trial(lease.trial).phase is None


def test_losses_are_kept_by_step_whatever_is_sent_twice(rows: Rows, worker: Worker) -> None:
    rows.sweep(1)
    lease = worker.must_claim()
    worker.report(lease, losses=[{"step": 1, "training_loss": 3.0}, {"step": 2, "training_loss": 2.0}])
    worker.report(lease, losses=[{"step": 2, "training_loss": 2.0}, {"step": 2, "validation_loss": 2.5}])
    detail = rows.database.read(lambda session: trials.detail(session, trials.get(session, lease.trial)))
    assert [(point.step, point.training_loss, point.validation_loss) for point in detail.curve] == [
        (1, 3.0, None),
        (2, 2.0, 2.5),
    ]


def test_the_curve_shown_is_that_of_the_newest_attempt(rows: Rows, worker: Worker) -> None:
    rows.sweep(1)
    old = worker.must_claim()
    worker.report(old, losses=[{"step": 1, "training_loss": 9.0}])
    worker.release(old)
    new = worker.must_claim()
    worker.report(new, losses=[{"step": 5, "training_loss": 1.0}])
    detail = rows.database.read(lambda session: trials.detail(session, trials.get(session, new.trial)))
    assert [point.step for point in detail.curve] == [5]
    assert rows.database.read(lambda session: session.scalar(sa.select(sa.func.count()).select_from(Report))) == 2


def test_progress_is_that_of_the_phase(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1)
    lease = worker.must_claim()
    worker.report(lease, phase="train", progress={"step": 10, "steps": 500})
    assert rows.trial(lease.trial).progress == {"step": 10, "steps": 500}
    assert rows.kinds(sweep)[-2:] == ["trial.phase", "trial.report"]
    worker.report(lease, phase="rebuild")
    assert rows.trial(lease.trial).progress is None


def test_the_tail_of_the_log_is_kept(rows: Rows, worker: Worker) -> None:
    rows.sweep(1)
    lease = worker.must_claim()
    worker.report(lease, log="first line")
    worker.report(lease, log="second line\n")
    worker.report(lease, log="third line")
    (attempt,) = _attempts(rows.database, lease.trial)
    assert attempt.log == "first line\nsecond line\nthird line"
    for _ in range(5):
        worker.report(lease, log="x" * 65_536)
    worker.finish(lease, FINISH.model_copy(update={"log": "the end"}))
    (attempt,) = _attempts(rows.database, lease.trial)
    assert len(attempt.log) == 262_144
    assert attempt.log.endswith("the end")


def test_the_worker_of_a_cancelled_trial_is_told_to_stop(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(2)
    lease = worker.must_claim()
    assert rows.database.write(lambda session: queue.cancel_open(session, sweep, "cancelled by its owner")) == 2
    assert worker.heartbeat(lease) == "cancel"
    assert worker.report(lease, log="more") == "cancel"
    for call in (worker.finish, worker.release):
        with pytest.raises(LeaseLostError):
            call(lease)
    trial = rows.trial(lease.trial)
    assert (trial.state, trial.reason) == ("cancelled", "cancelled by its owner")
    assert [attempt.outcome for attempt in _attempts(rows.database, trial.id)] == ["cancelled"]
    assert rows.kinds(sweep)[-2:] == ["trial.ended", "trial.ended"]
    _assert_counted(rows, sweep)


def test_a_trial_that_does_not_exist_is_not_found(worker: Worker, rows: Rows) -> None:
    rows.sweep(1)
    lease = worker.must_claim().model_copy(update={"trial": "nothing"})
    for call in (worker.heartbeat, worker.report, worker.finish, worker.release):
        with pytest.raises(NotFoundError):
            call(lease)


# --- finish ----------------------------------------------------------------------------------------------------------


def test_a_finish_stores_everything_at_once(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1)
    lease = worker.must_claim()
    worker.finish(lease)
    trial = rows.trial(lease.trial)
    assert (trial.state, trial.feasible, trial.violations, trial.lease_expires_at) == ("complete", True, {}, None)
    assert trial.metrics == {"latency_ms_p50": 1.5}
    assert trial.ended_at is not None

    def stored(session: Session) -> tuple[list[float], list[dict[str, Any]], Event]:
        values = session.scalars(sa.select(TrialMetric.value).where(TrialMetric.trial_id == trial.id)).all()
        data = session.scalars(sa.select(Measurement.data).where(Measurement.trial_id == trial.id)).all()
        event = session.scalars(sa.select(Event).where(Event.kind == "trial.ended")).one()
        return list(values), list(data), event

    values, data, event = rows.database.read(stored)
    assert values == [1.5]
    assert data == [{"samples": [1.5]}]
    assert event.data == {"number": 0, "state": "complete", "feasible": True, "reused": False}
    _assert_counted(rows, sweep)


def test_the_same_finish_twice_is_accepted_once(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1)
    lease = worker.must_claim()
    first = worker.finish(lease)
    again = worker.finish(lease)
    assert (again.id, again.state, again.ended_at) == (first.id, first.state, first.ended_at)
    assert rows.kinds(sweep).count("trial.ended") == 1
    with pytest.raises(LeaseLostError):
        worker.finish(lease, FAILED)
    _assert_counted(rows, sweep)


def test_the_same_finish_at_the_same_time_is_accepted_once(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1)
    lease = worker.must_claim()
    with ThreadPoolExecutor(4) as threads:
        finished = list(threads.map(lambda _: worker.finish(lease), range(4)))
    assert {trial.state for trial in finished} == {"complete"}
    assert rows.kinds(sweep).count("trial.ended") == 1
    _assert_counted(rows, sweep)


@pytest.mark.parametrize(("p99", "feasible", "violation"), [(1.75, True, -0.25), (2.5, False, 0.5)])
def test_constraints_are_judged_here(rows: Rows, worker: Worker, p99: float, feasible: bool, violation: float) -> None:
    rows.sweep(1, constraints=("latency_ms_p99 <= 2.0", "latency_ms_p50 * hidden_size <= 1000"))
    lease = worker.must_claim()
    worker.finish(
        lease, lease_schemas.LeaseFinish(outcome="complete", metrics={"latency_ms_p50": 1, "latency_ms_p99": p99})
    )
    trial = rows.trial(lease.trial)
    assert (trial.state, trial.feasible) == ("complete", feasible)
    assert trial.violations == {
        "latency_ms_p99 <= 2.0": pytest.approx(violation),
        "latency_ms_p50 * hidden_size <= 1000": pytest.approx(64 - 1000),
    }


def test_an_infeasible_trial_keeps_what_was_measured_of_its_violations(rows: Rows, worker: Worker) -> None:
    rows.sweep(1, constraints=("latency_ms_p99 <= 2.0", "validation_loss <= 3"))
    lease = worker.must_claim()
    body = lease_schemas.LeaseFinish(outcome="infeasible", reason="too slow", metrics={"latency_ms_p99": 3.0})
    worker.finish(lease, body)
    trial = rows.trial(lease.trial)
    assert (trial.state, trial.feasible, trial.reason) == ("infeasible", False, "too slow")
    assert trial.violations == {"latency_ms_p99 <= 2.0": pytest.approx(1.0)}


def test_a_failed_trial_is_not_judged(rows: Rows, worker: Worker) -> None:
    rows.sweep(1, constraints=("latency_ms_p99 <= 2.0",))
    lease = worker.must_claim()
    worker.finish(lease, FAILED)
    trial = rows.trial(lease.trial)
    assert (trial.state, trial.feasible, trial.violations) == ("failed", None, None)
    assert trial.reason == "the engine does not build"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"outcome": "complete", "metrics": {"latency_ms_p50": 1, "speed": 2}}, "/metrics/speed"),
        ({"outcome": "complete", "metrics": {"latency_ms_p90": 1}}, "/metrics/latency_ms_p50"),
        ({"outcome": "complete", "metrics": {"latency_ms_p50": 1}}, "/metrics/latency_ms_p99"),
        ({"outcome": "failed", "measurements": {"x" * 65: {}}}, "/measurements/" + "x" * 65),
    ],
)
def test_a_finish_that_cannot_be_used_is_refused_and_the_lease_stays(
    rows: Rows, worker: Worker, body: dict[str, Any], place: str
) -> None:
    rows.sweep(1, constraints=("latency_ms_p99 <= 2.0",))
    lease = worker.must_claim()
    with pytest.raises(UnprocessableError) as caught:
        worker.finish(lease, lease_schemas.LeaseFinish(**body))
    assert place in [problem.pointer for problem in caught.value.problems]
    assert rows.trial(lease.trial).lease_expires_at is not None
    assert worker.heartbeat(lease) == "continue"


# --- release ---------------------------------------------------------------------------------------------------------


def test_a_released_trial_is_queued_again_without_a_charge(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1)
    lease = worker.must_claim()
    worker.report(lease, phase="build")
    released = worker.release(lease)
    assert (released.state, released.worker, released.phase) == ("queued", None, None)
    assert rows.trial(lease.trial).charged_attempts == 0
    assert rows.kinds(sweep)[-1] == "trial.queued"
    _assert_counted(rows, sweep)
    with pytest.raises(LeaseLostError):
        worker.heartbeat(lease)
    again = worker.must_claim()
    assert (again.trial, again.attempt) == (lease.trial, 2)
    assert [attempt.outcome for attempt in _attempts(rows.database, lease.trial)] == ["released", None]


def test_a_trial_that_outlives_every_worker_is_not_repeated_for_ever(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1)
    states = [worker.release(worker.must_claim()).state for _ in range(holders.MOST_UNCHARGED + 3)]
    assert states == ["queued"] * (holders.MOST_UNCHARGED + 2) + ["failed"]
    (trial,) = rows.database.read(lambda session: session.scalars(sa.select(Trial)).all())
    assert trial.charged_attempts == 3
    assert "longer than the time limit of its workers" in str(trial.reason)
    _assert_counted(rows, sweep)


def test_charged_releases_use_the_attempts_up(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1)
    states = [worker.release(worker.must_claim(), charge=True).state for _ in range(3)]
    assert states == ["queued", "queued", "failed"]
    (trial,) = rows.database.read(lambda session: session.scalars(sa.select(Trial)).all())
    assert "3 of at most 3 attempts" in str(trial.reason)
    assert "the worker drains" in str(trial.reason)
    _assert_counted(rows, sweep)


def test_a_release_in_an_ended_sweep_cancels_the_trial(rows: Rows, worker: Worker) -> None:
    sweep = rows.sweep(1)
    lease = worker.must_claim()
    rows.update(Sweep, sweep, state="cancelled")
    assert worker.release(lease).state == "cancelled"
    _assert_counted(rows, sweep)


# --- cost ------------------------------------------------------------------------------------------------------------


def test_a_claim_reads_open_trials_only(database: Database, rows: Rows) -> None:
    worker = rows.worker()
    sweep = rows.sweep(1)
    key = rows.find_sweep(sweep).target_key

    def many_ended(session: Session) -> None:
        ended = [
            {
                "id": f"{number:026d}",
                "sweep_id": sweep,
                "number": 10 + number,
                "state": "complete",
                "parameters": {},
                "configuration": {},
                "point_hash": f"ended-{number}",
                "reuse_key": "",
                "target_key": key,
                "created_at": 0.0,
            }
            for number in range(3000)
        ]
        session.execute(sa.insert(Trial), ended)

    database.write(many_ended)
    if database.dialect == "postgresql":
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))
    explain = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "
    plan: list[str] = []
    for looked_for in (statements.SWEEPS_WITH_TURN, statements.LAPSED_SWEEPS, statements.FREE_SLOTS, statements.QUEUED):
        given = {"target_keys": [key], "of_project": "default", "results_version": 1, "most": 1}
        given |= {"of_workers": [worker], "of_sweep": sweep}
        used = looked_for.compile(database.engine).params.keys()
        bound = looked_for.params({name: value for name, value in given.items() if name in used})
        statement = f"{explain}{bound.compile(database.engine, compile_kwargs={'literal_binds': True})}"

        def read(session: Session, statement: str = statement) -> list[str]:
            return [str(row) for row in session.connection().exec_driver_sql(statement.replace("%", "%%"))]

        plan += database.read(read)
    assert any("ix_trials_sweep_id_state_number" in line for line in plan), plan
    scanned = re.compile(r"(?:Seq Scan on|SCAN) (?:trials|queued|held)")
    assert not any(scanned.search(line) for line in plan), plan
    assert database.write(lambda session: queue.claim(session, worker, 30)) is not None


def test_a_sweep_is_counted_while_another_transaction_refers_to_it(postgres_url: str, make_rows: type[Rows]) -> None:
    # Locked for an update of its key, the sweep's row and that transaction's next event would wait for one another.
    database = Database(postgres_url)
    rows = make_rows(database)
    sweep_id = rows.sweep(1)
    (trial,) = database.read(lambda session: session.scalars(sa.select(Trial.id)).all())

    def count(session: Session) -> None:
        session.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
        counts.add(session, sweep_id, {"queued": 1})

    with database.engine.begin() as other:
        metric = {"trial_id": trial, "name": "latency_ms_p50", "sweep_id": sweep_id, "value": 1.0}
        other.execute(sa.insert(TrialMetric).values(metric))
        database.write(count)
    assert rows.find_sweep(sweep_id).counts["queued"] == 2
    database.close()


def test_a_finish_that_claims_reads_what_never_changes_once(rows: Rows) -> None:
    rows.sweep(4)
    worker = Worker(rows)
    lease = worker.must_claim()

    def finish_and_claim() -> lease_schemas.Lease:
        finished = rows.database.write(
            lambda session: queue.finish_and_claim(
                session, [queue.FinishThatClaims(lease.trial, lease.attempt, FINISH, 30)]
            )[0]
        )
        assert finished.lease is not None
        return finished.lease

    lease = finish_and_claim()
    with recorded_statements() as statements_sent:
        finish_and_claim()
    reads = [text for text in statements_sent if text.startswith("SELECT")]
    assert not [text for text in reads if "datasets" in text or "sweeps.document" in text or "workers.targets" in text]
