"""Steps that take long, hang or are cut: leadership, other sweeps and housekeeping go on beside them.

The samplers are made to wait here by events; trials are run by the pretend worker of `sweep_driver`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient

from layers.parameter import Scalar
from service.app import create_app
from service.common.notifications import WORKERS
from service.database.sessions import Database
from service.operations import artifacts, housekeeping
from service.scheduling import leader, proposals, sweep_scheduler
from service.scheduling.samplers.random_study import RandomStudy
from service.scheduling.scheduler import Scheduler
from service.scheduling.studies import Suggestion
from service.settings import Settings
from tests.service.sweep_driver import TWELVE_POINTS, Driver, small

Ask = Callable[..., Suggestion]


class Hurdle:
    """The first asks of one scheduler wait until they are let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.passed = threading.Event()
        self.released = threading.Event()
        self.before: Callable[[], object] = lambda: None

    def wrap(self, ask: Ask, seed: int) -> Ask:
        """`ask`, but that of the sweep with this seed waits in the thread of the scheduler that came first."""
        first: list[str] = []

        def waits(study: RandomStudy, chosen: Mapping[str, Scalar] | None = None) -> Suggestion:
            if study._seed == seed and not self.reached.is_set():
                first.append(threading.current_thread().name)
                self.reached.set()
                self.before()
                assert self.released.wait(60)
                self.passed.set()
            return ask(study, chosen)

        return waits


@pytest.fixture
def hurdle(monkeypatch: pytest.MonkeyPatch) -> Generator[Hurdle]:
    """Stands before the first ask of the sweep with seed 1."""
    hurdle = Hurdle()
    monkeypatch.setattr(RandomStudy, "ask", hurdle.wrap(RandomStudy.ask, seed=1))
    yield hurdle
    hurdle.released.set()


@pytest.fixture
def start(database: Database, settings: Settings) -> Generator[Callable[..., Scheduler]]:
    """Starts a scheduler with settings of its own."""
    started: list[Scheduler] = []

    def start(**changes: Any) -> Scheduler:
        quick = {"leader_seconds": 0.3, "scheduler_idle_seconds": 0.05}
        scheduler = Scheduler(database, database.notifications, settings.model_copy(update=quick | changes))
        started.append(scheduler)
        scheduler.start()
        return scheduler

    yield start
    for scheduler in started:
        scheduler.stop()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what another thread does to the database, which tells nobody."""
    never = threading.Event()
    for _ in range(3000):
        if condition():
            return
        never.wait(0.02)
    pytest.fail(f"it did not come to pass that {what}")


def _waiting(driver: Driver, seed: int = 1) -> str:
    return driver.post(small(name=f"seed {seed}", search={"seed": seed, "sampler": "random", "reuse": False}))


def test_leadership_lasts_as_long_as_a_step_does(
    driver: Driver, hurdle: Hurdle, start: Callable[..., Scheduler]
) -> None:
    sweep = _waiting(driver)
    start()
    assert hurdle.reached.wait(30)
    for _ in range(3):
        expires_at = driver.sweep(sweep).leader_expires_at or 0
        until(lambda at=expires_at: (driver.sweep(sweep).leader_expires_at or 0) > at, "leadership is renewed")
    hurdle.released.set()
    until(lambda: driver.trials(sweep), "the step ends")
    assert driver.sweep(sweep).leader_epoch == 1


def test_a_step_that_hangs_is_taken_over_and_writes_nothing_more(
    driver: Driver, hurdle: Hurdle, start: Callable[..., Scheduler]
) -> None:
    sweep = _waiting(driver)
    first = start(step_seconds=0.2)
    assert hurdle.reached.wait(30)
    second = start()
    until(lambda: driver.trials(sweep), "another process takes the sweep")
    assert driver.sweep(sweep).leader_id == second._leader_id != first._leader_id
    trials, asks = driver.trials(sweep), driver.sequence(sweep)
    hurdle.released.set()
    assert hurdle.passed.wait(30)
    first.stop()
    assert [trial.id for trial in driver.trials(sweep)] == [trial.id for trial in trials]
    assert driver.sequence(sweep) == asks


def test_a_process_alone_leaves_a_step_that_hangs_and_goes_on(
    driver: Driver, hurdle: Hurdle, start: Callable[..., Scheduler]
) -> None:
    sweep = _waiting(driver)
    start(step_seconds=0.2)
    assert hurdle.reached.wait(30)
    until(lambda: "step_timeout" in (driver.sweep(sweep).reason or ""), "it is said")
    until(lambda: driver.trials(sweep), "the same process begins anew")
    until(lambda: driver.sweep(sweep).reason is None, "it is said no more")
    hurdle.released.set()


def test_a_step_that_ends_as_it_is_given_up_does_not_count_as_one_that_hangs(
    driver: Driver, start: Callable[..., Scheduler]
) -> None:
    scheduler = start()
    sweep = _waiting(driver)
    for _ in range(leader.MOST_HUNG_STEPS):
        scheduler._give_up(scheduler._held.of(sweep))
    until(lambda: driver.trials(sweep), "the sweep has trials")


def test_a_system_without_another_thread_delays_a_step_and_no_more(
    driver: Driver, start: Callable[..., Scheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[threading.Thread] = []
    begin = threading.Thread.start

    def start_thread(thread: threading.Thread) -> None:
        if thread.name.startswith("step ") and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", start_thread)
    sweep = _waiting(driver)
    start()
    until(lambda: driver.trials(sweep), "the sweep has trials")
    assert refused


def test_a_step_delays_no_other_sweep(driver: Driver, hurdle: Hurdle, start: Callable[..., Scheduler]) -> None:
    slow = _waiting(driver)
    start()
    assert hurdle.reached.wait(30)
    quick = _waiting(driver, seed=2)
    until(lambda: driver.trials(quick), "the other sweep has trials")
    lease = driver.claim()
    assert lease is not None
    assert lease.sweep == quick
    assert not hurdle.passed.is_set()
    assert driver.trials(slow) == []
    hurdle.released.set()


def test_a_worker_that_waits_ends_the_pause_between_steps(
    driver: Driver, start: Callable[..., Scheduler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader, "BATCH_SECONDS", 3600.0)
    driver.post(small(budget={"parallel": 1}))
    start(scheduler_lookahead=0)

    def ends_a_trial() -> bool:
        driver.database.notifications.publish(WORKERS)
        lease = driver.claim()
        if lease is not None:
            driver.finish(lease)
        return lease is not None

    for number in range(4):
        until(ends_a_trial, f"trial {number} is queued")


def test_a_store_of_artifacts_that_hangs_keeps_no_sweep_waiting(
    driver: Driver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, released = threading.Event(), threading.Event()

    def hang(*_: object) -> int:
        reached.set()
        released.wait(60)
        return 0

    monkeypatch.setattr(artifacts, "collect_garbage", hang)
    monkeypatch.setattr(housekeeping, "STOP_SECONDS", 0.01)
    with TestClient(create_app(settings.model_copy(update={"scheduler_idle_seconds": 0.05}))):
        assert reached.wait(30)
        sweep = _waiting(driver)
        until(lambda: driver.trials(sweep), "the sweep has trials")
    released.set()


@pytest.mark.parametrize("sampler", ["grid", "random"])
def test_what_was_looked_at_in_a_sparse_space_is_stored_as_it_goes(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    # 3 of 300 points keep the rule: the sampler finds hardly one by itself.
    rule = "num_layers > 74 and hidden_size * attention.num_attention_heads < 200"
    sparse = small(rules=[rule], search={"sampler": sampler, "seed": 5, "reuse": False})
    sparse["model"] = TWELVE_POINTS | {"num_layers": {"min": 1, "max": 75}}
    whole = driver.post(sparse)
    driver.run_to_the_end(whole)
    monkeypatch.setattr(proposals, "POINTS_AT_ONCE", 7)
    cut = driver.post(sparse)
    positions: list[int] = []
    for _ in range(200):
        driver.scheduler = driver.new_scheduler()  # each step is begun by another process
        held = driver.scheduler._held.of(cut)
        driver.scheduler._advance(held)
        positions.append(driver.attributes(cut).get("layersweep:position", {"value": 0})["value"])
        lease = driver.claim()
        if lease is not None:
            driver.finish(lease)
        if driver.sweep(cut).state == "completed":
            break
    assert driver.sequence(cut) == driver.sequence(whole)
    assert driver.sweep(cut).reason == driver.sweep(whole).reason == "space_exhausted"
    assert positions == sorted(positions)
    assert len(set(positions)) > 20


@pytest.mark.parametrize("reuse", [True, False])
def test_a_step_that_is_cut_suggests_the_same(driver: Driver, monkeypatch: pytest.MonkeyPatch, reuse: bool) -> None:
    search = {"sampler": "tpe", "seed": 3, "reuse": reuse}
    known = driver.post(small(name="known", search=search | {"seed": 4}, budget={"trials": 3}))
    driver.run_to_the_end(known)
    sequences: list[Any] = []
    for seconds in (1e9, -1.0):
        monkeypatch.setattr(sweep_scheduler, "MAX_SECONDS", seconds)
        sweep = driver.post(small(name=f"cut at {seconds}", search=search, budget={"parallel": 3, "trials": 9}))
        driver.run_to_the_end(sweep)
        sequences.append(driver.sequence(sweep)[:9])
        driver.cancel(sweep)
    assert sequences[0] == sequences[1]
