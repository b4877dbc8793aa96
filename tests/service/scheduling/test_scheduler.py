"""What the scheduler does with a sweep: trials, rejections, budgets, ranks, targets, leadership.

Trials are run by the pretend worker of `sweep_driver`: nothing is measured.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from service.database.models import Sweep
from service.database.sessions import Database
from service.leases import holders
from service.results.pareto import Ranking
from service.scheduling.samplers.random_study import RandomStudy
from service.scheduling.scheduler import Scheduler
from service.settings import Settings
from service.sweeps import budgets, sweeps, targets
from service.sweeps import schemas as sweep_schemas
from tests.service.sweep_driver import TWELVE_POINTS, Driver, Measure, document, formula, small


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    driver = Driver(database, settings)
    driver.add_dataset()
    return driver


def _events(driver: Driver, sweep_id: str, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in driver.events(sweep_id) if event.kind == kind]


def _always_fails(configuration: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    return "failed", {}


# --- trials -----------------------------------------------------------------------------------------------------------


def test_it_asks_ahead_by_the_parallel_trials_and_the_lookahead(driver: Driver) -> None:
    driver.add_worker()
    sweep = driver.post(document(budget={"parallel": 3}))
    assert driver.step(sweep)
    assert driver.sweep(sweep).counts == {"queued": 3 + driver.settings.scheduler_lookahead}
    assert not driver.step(sweep), "there is nothing more to do"


def test_a_quick_sweep_asks_further_ahead_for_the_same_points(driver: Driver) -> None:
    driver.add_worker()
    quick, slow = (driver.post(document(budget={"parallel": 5, "trials": 40})) for _ in range(2))
    driver.run(slow, 20)
    driver.cancel(slow)
    driver.step(quick)
    for lease in [lease for _ in range(5) if (lease := driver.claim()) is not None]:
        driver.finish(lease)
    driver.step(quick)
    assert driver.sweep(quick).counts["queued"] == 5 + 2 * 5, "twice as many as ended since it looked last"
    shared = min(len(driver.sequence(quick)), len(driver.sequence(slow)))
    assert driver.sequence(quick)[:shared] == driver.sequence(slow)[:shared]


def test_a_sampler_that_learns_is_never_asked_further_ahead(driver: Driver) -> None:
    driver.add_worker()
    sweep = driver.post(document(search={"sampler": "tpe"}, budget={"parallel": 5, "trials": 40}))
    driver.step(sweep)
    for lease in [lease for _ in range(5) if (lease := driver.claim()) is not None]:
        driver.finish(lease)
    driver.step(sweep)
    assert driver.sweep(sweep).counts["queued"] == 5 + driver.settings.scheduler_lookahead


def test_the_surrogate_is_asked_when_a_trial_is_needed(driver: Driver) -> None:
    driver.add_worker()
    sweep = driver.post(document(search={"sampler": "surrogate"}, budget={"parallel": 3}))
    driver.step(sweep)
    assert driver.sweep(sweep).counts == {"queued": 3}


def test_a_trial_has_what_a_worker_and_a_leaderboard_need(driver: Driver) -> None:
    driver.add_worker()
    sweep = driver.post(document())
    driver.step(sweep)
    trial = driver.trials(sweep)[0]
    assert trial.configuration["model"]["hidden_size"] == trial.parameters["hidden_size"]
    assert trial.parameters["mlp.ffn_hidden_size"] == 4 * trial.parameters["hidden_size"], "derived ones are shown"
    assert "training.steps" not in trial.parameters, "fixed ones are not"
    assert trial.metrics["parameter_count"] <= 5e5
    assert trial.target_key == driver.sweep(sweep).target_key
    assert [event["number"] for event in _events(driver, sweep, "trial.queued")] == [0, 1, 2, 3]


def test_points_that_break_a_rule_are_counted_and_become_no_trial(driver: Driver) -> None:
    sweep = driver.post(document(constraints=["parameter_count <= 1e5"]))
    driver.run(sweep, 15)
    rejected = [ask for ask in driver.asks(sweep) if ask.rejection is not None]
    assert rejected
    assert all("parameter_count <= 1e5" in (ask.rejection or "") for ask in rejected)
    assert all(ask.trial_id is None and ask.told is not None for ask in rejected)
    assert driver.sweep(sweep).rejected_count == len(rejected)
    assert all(trial.metrics["parameter_count"] <= 1e5 for trial in driver.trials(sweep))


def test_points_that_the_target_does_not_support_become_no_trial(driver: Driver) -> None:
    model = {**TWELVE_POINTS, "dtype": {"values": ["float32", "float16"]}}
    sweep = driver.post({**small(), "model": model})
    ended = driver.run_to_the_end(sweep)
    assert (ended.reason, ended.counts["complete"]) == ("space_exhausted", 12)
    assert {trial.configuration["model"]["dtype"] for trial in driver.trials(sweep)} == {"float32"}


def test_the_sampler_is_told_how_each_trial_ended(driver: Driver) -> None:
    sweep = driver.post(document(search={"seed": 1}))
    driver.run(sweep, 60)
    trials = {trial.id: trial for trial in driver.trials(sweep)}
    told = {trials[ask.trial_id]: ask.told for ask in driver.asks(sweep) if ask.trial_id and ask.told}
    assert {trial.state for trial in told} == {"complete", "infeasible", "pruned", "failed"}
    for trial, said in told.items():
        assert said["state"] == trial.state
        violation = said["constraints"].get("violation")
        if trial.state == "complete":
            assert said["values"] == [trial.metrics["latency_ms_p50"], trial.metrics["validation_loss"]]
            assert (violation <= 0) == trial.feasible
        elif trial.state == "infeasible":
            assert (said["values"], violation > 0) == (None, True)
    orders = [ask.told_order for ask in driver.asks(sweep) if ask.told_order is not None]
    assert sorted(orders) == list(range(len(orders)))


def test_feasible_complete_trials_are_ranked_as_they_end(driver: Driver) -> None:
    sweep = driver.post(document())
    driver.run(sweep, 30, rebuild_every=7)
    ranking = Ranking(["minimize", "minimize"])
    for trial in driver.trials(sweep):
        if trial.state == "complete" and trial.feasible:
            ranking.add(trial.id, [trial.metrics["latency_ms_p50"], trial.metrics["validation_loss"]])
    assert len(ranking) > 5
    assert {trial.id: trial.pareto_rank for trial in driver.trials(sweep) if trial.pareto_rank} == ranking.ranks


def test_starts_are_tried_first(driver: Driver) -> None:
    start = {"num_layers": 2, "hidden_size": 64, "attention.num_attention_heads": 4}
    sweep = driver.post(small(start_from=[start]))
    driver.run(sweep, 3)
    first, second, *_ = driver.trials(sweep)
    assert first.parameters == start
    assert first.started_from == "start_from/0"
    assert second.started_from is None


def test_a_sweep_goes_on_after_the_trial_that_it_starts_from_is_deleted(driver: Driver) -> None:
    old = driver.post(small(name="old", budget={"trials": 2}))
    driver.run_to_the_end(old)
    origin = driver.trials(old)[0]
    sweep = driver.post(small(start_from=[f"trial:{origin.id}"]))
    driver.database.write(lambda session: sweeps.delete(session, old))
    driver.scheduler = driver.new_scheduler()
    driver.run(sweep, 2)
    assert driver.trials(sweep)[0].parameters == origin.parameters
    assert driver.trials(sweep)[0].started_from == f"trial:{origin.id}"


# --- how a sweep ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "surrogate", "qmc", "grid"])
def test_a_space_of_twelve_points_is_exhausted_after_twelve_trials(driver: Driver, sampler: str) -> None:
    sweep = driver.post(small(search={"sampler": sampler}, budget={"trials": 100}))
    ended = driver.run_to_the_end(sweep)
    assert (ended.state, ended.reason) == ("completed", "space_exhausted")
    assert len({trial.point_hash for trial in driver.trials(sweep)}) == ended.counts["complete"] == 12
    assert ended.rejected_count == 0, "a repeated point breaks no rule"
    assert ended.ended_at is not None


def test_only_feasible_points_are_counted_for_exhaustion(driver: Driver) -> None:
    sweep = driver.post({**small(search={"sampler": "tpe"}), "rules": ["num_layers + hidden_size / 32 <= 3"]})
    ended = driver.run_to_the_end(sweep)
    assert (ended.reason, ended.counts["complete"]) == ("space_exhausted", 6)
    assert ended.rejected_count > 0


def test_the_budget_of_trials_ends_a_sweep_when_the_last_one_ended(driver: Driver) -> None:
    sweep = driver.post(document(budget={"trials": 5, "parallel": 1}))
    driver.run(sweep, 4)
    assert driver.sweep(sweep).state == "active"
    driver.run(sweep, 1)
    ended = driver.sweep(sweep)
    assert (ended.state, ended.reason, len(driver.trials(sweep))) == ("completed", "budget_exhausted", 5)


def test_a_sweep_that_mostly_fails_ends_with_the_reason(driver: Driver) -> None:
    sweep = driver.post(document(budget={"failures": 3}))
    driver.run(sweep, 10, _always_fails)
    ended = driver.sweep(sweep)
    assert ended.state == "failed"
    assert "3 trials failed" in (ended.reason or "")
    assert "made to fail" in (ended.reason or "")
    assert ended.counts["failed"] == 3
    assert {trial.state for trial in driver.trials(sweep)} == {"failed", "cancelled"}


def test_no_trial_begins_once_the_failures_are_used_up(driver: Driver) -> None:
    driver.add_worker()
    sweep = driver.post(document(budget={"failures": 2, "parallel": 1}))
    driver.step(sweep)
    for _ in range(2):
        lease = driver.claim()
        assert lease is not None
        driver.finish(lease, _always_fails)
    assert driver.claim() is None, "though others are queued until the scheduler has looked"
    driver.step(sweep)
    assert driver.sweep(sweep).counts["failed"] == 2


def test_a_complete_trial_that_breaks_a_constraint_says_which_and_by_how_much(driver: Driver) -> None:
    constraints = ["latency_ms_p50 <= 0.75", "validation_loss <= 0.5", "latency_ms_p50 * validation_loss <= 1"]
    sweep = driver.post(small(budget={"trials": 1}) | {"constraints": constraints})

    def measure(configuration: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
        return "complete", {"latency_ms_p50": 1.0, "validation_loss": 2.0}

    driver.run(sweep, 1, measure)
    (trial,) = driver.trials(sweep)[:1]
    assert (trial.state, trial.feasible) == ("complete", False)
    assert (trial.reason or "").split("; ") == [
        "latency_ms_p50 <= 0.75 is broken by 0.25 (latency_ms_p50 is 1), at the final measurement",
        "validation_loss <= 0.5 is broken by 1.5 (validation_loss is 2), at evaluation",
        "latency_ms_p50 * validation_loss <= 1 is broken by 1 (latency_ms_p50 is 1, validation_loss is 2), "
        "at evaluation",
    ]


@pytest.mark.parametrize("budget", [{"trials": 3}, {"trials": 100, "wall_seconds": 1000}])
def test_a_sweep_of_which_every_trial_failed_has_failed(driver: Driver, budget: dict[str, Any]) -> None:
    sweep = driver.post(small(budget={"parallel": 1, "failures": 100} | budget))
    driver.run(sweep, 3, _always_fails)
    if "wall_seconds" in budget:
        driver.set(sweep, started_at=1.0)
        driver.step(sweep)
    shown = driver.shown(sweep)
    assert (shown.state, shown.end_code) == ("failed", "all_failed")
    assert shown.reason == "all 3 trials failed; the last one: made to fail"


def test_a_space_of_which_every_point_failed_has_failed(driver: Driver) -> None:
    sweep = driver.post(small(budget={"trials": 100, "failures": 100}))
    driver.run_to_the_end(sweep, _always_fails)
    assert (driver.shown(sweep).end_code, driver.shown(sweep).progress.failed) == ("all_failed", 12)


def test_one_trial_that_did_not_fail_is_enough_to_complete(driver: Driver) -> None:
    sweep = driver.post(small(budget={"trials": 3, "parallel": 1, "failures": 100}))
    driver.run(sweep, 1)
    driver.run(sweep, 2, _always_fails)
    assert (driver.shown(sweep).state, driver.shown(sweep).end_code) == ("completed", "budget_exhausted")


def test_ends_tell_themselves_apart(driver: Driver) -> None:
    def end_code(measure: Measure, **changes: Any) -> str | None:
        sweep = driver.post(small(**changes))
        driver.run_to_the_end(sweep, measure)
        return driver.shown(sweep).end_code

    def too_slow(configuration: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
        return "infeasible", {"latency_ms_p50": 99.0, "latency_ms_p99": 99.0}

    assert end_code(formula, budget={"trials": 2}) == "budget_exhausted"
    assert end_code(formula, budget={"trials": 100}) == "space_exhausted"
    assert end_code(too_slow, budget={"trials": 2}) == "none_feasible"
    assert end_code(_always_fails, budget={"trials": 100, "failures": 1}) == "failures"
    going = driver.post(small())
    assert driver.shown(going).end_code is None
    driver.cancel(going)
    assert driver.shown(going).end_code == "cancelled"


def test_the_wall_clock_ends_a_sweep_and_cancels_what_is_open(driver: Driver) -> None:
    sweep = driver.post(document(budget={"wall_seconds": 1000}))
    driver.run(sweep, 2)
    lease = driver.claim()
    assert lease is not None
    driver.set(sweep, started_at=1.0)
    assert driver.step(sweep)
    ended = driver.sweep(sweep)
    assert (ended.state, ended.reason) == ("completed", "wall_seconds")
    assert ended.counts["queued"] == ended.counts["running"] == 0
    told = driver.database.write(lambda session: holders.heartbeat(session, lease.trial, lease.attempt, 30))
    assert (told.action, told.reason) == ("cancel", "the sweep is completed")


def test_a_cancelled_sweep_gets_no_more_trials(driver: Driver) -> None:
    sweep = driver.post(document())
    driver.run(sweep, 3)
    before = len(driver.trials(sweep))
    driver.cancel(sweep)
    assert not driver.step(sweep)
    assert len(driver.trials(sweep)) == before
    told = [ask.told["state"] for ask in driver.asks(sweep) if ask.told is not None]
    assert told.count("failed") >= 1, "what was cancelled teaches the sampler nothing"


def test_an_extended_sweep_goes_on(driver: Driver) -> None:
    sweep = driver.post(document(search={"sampler": "tpe"}, budget={"trials": 12, "parallel": 1}))
    driver.run_to_the_end(sweep)
    before = driver.sequence(sweep)
    driver.database.write(lambda session: budgets.extend(session, sweep, sweep_schemas.BudgetExtension(trials=8)).id)
    driver.scheduler = driver.new_scheduler()
    ended = driver.run_to_the_end(sweep)
    assert (ended.state, ended.reason, len(driver.trials(sweep))) == ("completed", "budget_exhausted", 20)
    assert driver.sequence(sweep)[: len(before)] == before


# --- targets ----------------------------------------------------------------------------------------------------------


def test_a_sweep_waits_for_a_worker_that_can_serve_it(driver: Driver) -> None:
    sweep = driver.post(document(target={"runtime": "tensorrt"}))
    driver.step(sweep)
    assert driver.sweep(sweep).reason == "waiting for a worker with runtime tensorrt"
    driver.add_worker("cpu")
    driver.step(sweep)
    assert driver.sweep(sweep).target_key is None
    driver.add_worker("gpu", runtime="tensorrt", version="10.9", device_model="H200")
    driver.step(sweep)
    found = driver.sweep(sweep)
    assert (found.target_key, found.reason) == ("tensorrt 10.9 on H200", None)
    assert len(driver.trials(sweep)) == 4


def test_a_target_that_supports_no_point_is_passed_over(driver: Driver) -> None:
    sweep = driver.post({**small(), "model": TWELVE_POINTS | {"dtype": "float16"}})
    driver.add_worker("cpu")
    driver.step(sweep)
    reason = driver.sweep(sweep).reason or ""
    assert reason.startswith("waiting for a worker that supports a point of the space")
    assert "float16" in reason
    driver.add_worker("gpu", dtypes=["float32", "float16"], device_model="GPU")
    driver.step(sweep)
    assert driver.sweep(sweep).target_key == "onnxruntime 1.32.0 on GPU"


def test_workers_that_went_silent_and_those_that_only_build_are_no_targets(driver: Driver) -> None:
    driver.add_worker("builder", build_only=True)
    driver.database.write(lambda session: session.execute(sa.text("UPDATE workers SET last_seen_at = 1")).rowcount)
    driver.add_worker("builder", build_only=True)
    sweep = driver.post(document())
    driver.step(sweep)
    assert driver.sweep(sweep).reason == "waiting for a worker"


def test_a_sweep_that_is_cancelled_while_it_waits_needs_nothing_more(driver: Driver) -> None:
    sweep = driver.post(document())
    driver.cancel(sweep)
    assert driver.sweep(sweep).scheduled_sequence == driver.sweep(sweep).event_counter


# --- leadership -------------------------------------------------------------------------------------------------------


def test_a_sweep_that_is_cancelled_while_its_target_is_looked_for_needs_nothing_more(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_id = driver.post(small())
    driver.add_worker()
    resolve = targets.resolve

    def cancelled_meanwhile(*given: Any) -> Any:
        driver.database.write(lambda session: sweeps.cancel(session, sweep_id).id)
        return resolve(*given)

    monkeypatch.setattr(targets, "resolve", cancelled_meanwhile)
    assert not driver.step(sweep_id)
    assert not driver.step(sweep_id)
    sweep = driver.sweep(sweep_id)
    assert (sweep.state, sweep.target_key) == ("cancelled", None)
    assert sweep.scheduled_sequence == sweep.event_counter, "no leader need look at it again"


def test_a_sweep_has_one_leader(driver: Driver) -> None:
    driver.add_worker()
    sweep = driver.post(document())
    settings = driver.settings.model_copy(update={"leader_seconds": 1000})
    leader, other = (Scheduler(driver.database, driver.database.notifications, settings) for _ in range(2))
    assert leader.step(sweep)
    assert not other.step(sweep)
    leader.stop()
    lease = driver.claim()
    assert lease is not None
    driver.finish(lease)
    assert other.step(sweep), "who stops leaves its sweeps to others at once"


def test_what_a_former_leader_computed_is_thrown_away(driver: Driver) -> None:
    driver.add_worker()
    sweep = driver.post(document(search={"sampler": "tpe"}))
    former, present = driver.new_scheduler(), driver.new_scheduler()
    former.step(sweep)
    for _ in range(10):
        lease = driver.claim()
        assert lease is not None
        driver.finish(lease)
        assert present.step(sweep)
        # The former leader takes over again and again, each time with what it had in memory.
        former.step(sweep)
        former, present = present, former
    trials = driver.trials(sweep)
    assert [trial.number for trial in trials] == list(range(14))
    alone = driver.post(document(search={"sampler": "tpe"}))
    driver.cancel(sweep)
    driver.run(alone, 10)
    assert driver.sequence(alone) == driver.sequence(sweep)


def test_a_write_with_an_old_epoch_changes_nothing(driver: Driver) -> None:
    driver.add_worker()
    sweep = driver.post(document())
    driver.step(sweep)
    lease = driver.claim()
    assert lease is not None
    driver.finish(lease)
    driver.set(sweep, leader_epoch=99, leader_id="somebody else", leader_expires_at=1e12)
    before = driver.sweep(sweep).event_counter
    assert not driver.step(sweep)
    assert (len(driver.trials(sweep)), driver.sweep(sweep).event_counter) == (4, before)


def test_the_thread_schedules_what_is_posted_and_what_ends(driver: Driver) -> None:
    done = threading.Event()
    driver.settings = driver.settings.model_copy(update={"leader_seconds": 30, "scheduler_idle_seconds": 0.05})
    driver.scheduler = driver.new_scheduler()
    driver.worker = driver.add_worker()
    sweep = driver.post(small(budget={"trials": 6}))
    driver.scheduler.start()
    try:
        notifications = driver.database.notifications
        for _ in range(1000):
            since = notifications.version(("queue", f"sweep:{sweep}"))
            lease = driver.claim()
            if lease is not None:
                driver.finish(lease, formula)
            elif driver.sweep(sweep).state != "active":
                done.set()
                break
            else:
                notifications.wait_blocking(("queue", f"sweep:{sweep}"), 5, since=since)
    finally:
        driver.scheduler.stop()
    assert done.is_set()
    assert driver.sweep(sweep).reason == "budget_exhausted"
    query = sa.select(Sweep.leader_id).where(Sweep.id == sweep)
    assert driver.database.read(lambda session: session.scalar(query)) is None


def test_a_sweep_that_cannot_be_scheduled_says_so_and_goes_on_when_it_can(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.worker = driver.add_worker()
    broken, sound = driver.post(small(name="broken")), driver.post(small(name="sound"))
    asked = RandomStudy.ask
    said = threading.Event()

    def ask(study: RandomStudy, chosen: Any = None) -> Any:
        if driver.sweep(broken).reason is None and not said.is_set():
            said.set()
            raise RuntimeError("no idea what to try")
        return asked(study, chosen)

    monkeypatch.setattr(RandomStudy, "ask", ask)
    assert driver.scheduler.discover_sweeps() is False
    reason = driver.sweep(broken).reason or ""
    assert reason.startswith("scheduling failed once and is tried again (internal_error)")
    assert "no idea" not in reason, "an exception is for the log"
    assert _events(driver, broken, "sweep.trouble") == [{"reason": reason, "code": "internal_error"}]
    assert len(driver.trials(sound)) == 4
    driver.step(broken)
    assert len(driver.trials(broken)) == 4
