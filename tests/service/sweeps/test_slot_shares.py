"""`parallel: auto`: a sweep's share of the slots, the events that tell of it, and what is asked and claimed then."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from service.common.states import SweepState
from service.database.models import Event, Sweep
from service.database.sessions import Database
from service.fleet import quotas
from service.settings import Settings
from service.sweeps import slot_shares, sweeps
from service.sweeps.slot_shares import Offer, Served, Share, Sharer, shares
from tests.databases import POSTGRESQL_IN_SLOW_TESTS
from tests.service.rows import Rows
from tests.service.sweep_driver import Driver, document, small

TARGET = "onnxruntime 1.32.0 on Test CPU"


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    driver = Driver(database, settings.model_copy(update={"scheduler_lookahead": 1}))
    driver.add_dataset()
    return driver


def _auto(driver: Driver, **budget: Any) -> str:
    return driver.post(small(budget={"trials": 12, "parallel": "auto"} | budget))


def _changes(driver: Driver, sweep: str) -> list[tuple[int, int]]:
    changed = [event.data for event in driver.events(sweep) if event.kind == slot_shares.CHANGED]
    return [(data["before"], data["parallel"]) for data in changed]


# --- the shares -------------------------------------------------------------------------------------------------------


def _shares(sharers: list[tuple[str, str, str]], *offers: Offer) -> list[int]:
    found = shares([Sharer(sweep, project, Served(target, 1)) for sweep, project, target in sharers], offers)
    return [found[sweep] for sweep, _, _ in sharers]


def _offer(slots: int, *targets: str, project: str | None = None, version: int = 1) -> Offer:
    return Offer(project, [Served(target, version) for target in targets], slots)


def test_slots_are_shared_evenly_and_the_rest_goes_to_the_older_sweeps() -> None:
    assert _shares([("1", "p", "t")], _offer(8, "t")) == [8]
    assert _shares([("1", "p", "t"), ("2", "p", "t"), ("3", "q", "t")], _offer(8, "t")) == [3, 3, 2]
    assert _shares([("1", "p", "t"), ("2", "p", "t")], _offer(3, "t"), _offer(2, "t")) == [3, 2]


def test_each_sweep_has_at_least_one() -> None:
    assert _shares([("1", "p", "t"), ("2", "p", "t")], _offer(1, "t")) == [1, 1]
    assert _shares([("1", "p", "t")]) == [1]


def test_slots_of_workers_that_do_not_serve_a_sweep_do_not_count() -> None:
    sharers = [("1", "p", "t"), ("2", "q", "t"), ("3", "q", "u")]
    others = _offer(9, "t", project="r"), _offer(7, "t", "u", version=2)
    assert _shares(sharers, _offer(4, "t"), _offer(6, "t", "u", project="q"), *others) == [2, 8, 6]


def test_a_share_is_no_more_than_a_budget_may_say() -> None:
    assert _shares([("1", "p", "t")], *[_offer(64, "t")] * 20) == [1024]


def test_slots_are_shared_between_sweeps_of_one_priority_and_within_quotas() -> None:
    needs = Served("t", 1)
    sharers = [
        Sharer("1", "p", needs),
        Sharer("2", "p", needs),
        Sharer("3", "p", needs, priority=2),
        Sharer("4", "q", needs, priority=-1, quota=3),
        Sharer("5", "q", needs, priority=-2, quota=0),
    ]
    assert shares(sharers, [_offer(8, "t")]) == {"1": 4, "2": 4, "3": 8, "4": 3, "5": 1}


# --- a sweep's number -------------------------------------------------------------------------------------------------


def test_auto_is_the_default_and_begins_with_one(driver: Driver) -> None:
    written = small()
    del written["budget"]["parallel"]
    sweep = driver.post(written)
    shown = driver.shown(sweep)
    assert (shown.budget.parallel, shown.effective_parallel) == ("auto", 1)


def test_a_number_stays_and_nothing_is_said_of_it(driver: Driver) -> None:
    driver.add_worker(slots=8)
    sweep = driver.post(small(budget={"parallel": 3}))
    driver.step(sweep)
    assert driver.shown(sweep).effective_parallel == 3
    assert _changes(driver, sweep) == []


def test_a_sweep_takes_what_workers_come_and_gives_up_what_goes(driver: Driver) -> None:
    first = driver.add_worker(slots=4)
    sweep = _auto(driver)
    driver.step(sweep)
    driver.add_worker(slots=3)
    driver.step(sweep)
    driver.set_worker(first, signed_off_at=1.0)
    driver.step(sweep)
    driver.step(sweep)
    assert _changes(driver, sweep) == [(1, 4), (4, 7), (7, 3)]
    assert driver.shown(sweep).effective_parallel == 3


def test_sweeps_of_a_target_share_while_they_are_active(driver: Driver) -> None:
    driver.add_worker(slots=8)
    first, second = _auto(driver), _auto(driver)
    driver.post(small(budget={"parallel": 5}))
    for sweep in (first, second, first):
        driver.step(sweep)
    assert [driver.shown(sweep).effective_parallel for sweep in (first, second)] == [4, 4]
    driver.database.write(lambda session: sweeps.pause(session, first).id)
    for sweep in (first, second):
        driver.step(sweep)
    assert [driver.shown(sweep).effective_parallel for sweep in (first, second)] == [4, 8]
    assert _changes(driver, second) == [(1, 4), (4, 8)]


def test_a_priority_gives_a_sweep_a_share_of_its_own(driver: Driver) -> None:
    driver.add_worker(slots=8)
    first, second = _auto(driver), _auto(driver)
    for sweep in (first, second):
        driver.step(sweep)
    driver.database.write(lambda session: sweeps.prioritize(session, second, 1).id)
    driver.database.write(lambda session: quotas.change(session, "default", {"max_running_trials": 6}).name)
    for sweep in (first, second):
        driver.step(sweep)
    assert [driver.shown(sweep).effective_parallel for sweep in (first, second)] == [6, 6]


def test_a_look_finds_the_sweeps_whose_share_has_changed(driver: Driver) -> None:
    driver.add_worker(slots=2)
    # Steps of a sampler that learns are not held back to batch endings.
    sweep = driver.post(small(budget={"trials": 12, "parallel": "auto"}, search={"sampler": "tpe"}))
    driver.step(sweep)

    def outdated() -> set[str]:
        return driver.database.read(lambda session: slot_shares.outdated(session, 90))

    assert outdated() == set()
    worker = driver.add_worker(slots=2)
    assert outdated() == {sweep}
    driver.scheduler.discover_sweeps()
    assert outdated() == set()
    driver.set_worker(worker, last_seen_at=1.0)
    assert outdated() == {sweep}


def test_who_leads_no_more_gives_no_share(driver: Driver) -> None:
    driver.add_worker(slots=4)
    sweep = _auto(driver)
    driver.step(sweep)
    driver.set(sweep, effective_parallel=1)
    epoch = driver.sweep(sweep).leader_epoch
    driver.database.write(lambda session: slot_shares.update(session, sweep, epoch - 1, 90))
    assert driver.sweep(sweep).effective_parallel == 1


# --- what follows from it ---------------------------------------------------------------------------------------------


def test_so_many_trials_are_asked_for_and_claimed(driver: Driver) -> None:
    driver.add_worker(slots=5)
    sweep = _auto(driver)
    driver.step(sweep)
    assert len(driver.trials(sweep)) == 6, "five, and one ahead"
    claimed = 0
    while driver.claim() is not None:
        claimed += 1
    assert claimed == 5


@POSTGRESQL_IN_SLOW_TESTS
@pytest.mark.parametrize("sampler", ["random", "tpe", "qmc"])
def test_a_study_that_is_built_again_asks_as_the_first_one_did(driver: Driver, sampler: str) -> None:
    """Workers come and go between the trials; one of two alike sweeps is led by a new scheduler after each."""
    written = document(budget={"trials": 20, "parallel": "auto"}, search={"sampler": sampler})
    sequences = []
    for rebuilt in (False, True):
        worker = driver.worker = driver.add_worker(slots=2)
        sweep = driver.post(written)
        for number in range(20):
            if rebuilt:
                driver.scheduler = driver.new_scheduler()
            driver.step(sweep)
            driver.step(sweep)
            if number in (3, 8):
                helper = driver.add_worker(slots=3 + number)
            if number in (6, 12):
                driver.set_worker(helper, signed_off_at=1.0)
            lease = driver.claim()
            assert lease is not None
            driver.finish(lease)
        driver.step(sweep)
        assert [now for _, now in _changes(driver, sweep)] == [2, 8, 2, 13, 2]
        sequences.append(driver.sequence(sweep))
        driver.cancel(sweep)
        driver.set_worker(worker, signed_off_at=1.0)
    assert sequences[0] == sequences[1]


def test_a_number_of_which_the_events_are_gone_is_that_of_the_row(driver: Driver) -> None:
    driver.add_worker(slots=3)
    sweep = _auto(driver)
    driver.step(sweep)

    def read(session: Any) -> int:
        return slot_shares.as_of_scheduled(session, session.get_one(Sweep, sweep))

    assert driver.database.read(read) == 3
    driver.set(sweep, scheduled_sequence=0)
    assert driver.database.read(read) == 1, "the change is not worked in"
    driver.database.write(lambda session: session.execute(sa.delete(Event)).rowcount)
    assert driver.database.read(read) == 3


def test_the_page_says_the_number(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(1)
    served_rows.update(
        Sweep,
        sweep,
        budget={"trials": 9, "parallel": "auto", "failures": 3, "wall_seconds": None},
        effective_parallel=8,
    )
    assert "parallel auto (8 now)" in client.get(f"/sweeps/{sweep}").text
    served_rows.update(Sweep, sweep, state=SweepState.COMPLETED, reason="budget_exhausted")
    page = client.get(f"/sweeps/{sweep}").text
    assert ("parallel auto" in page, "now)" in page) == (True, False)


def test_devices_of_another_sweep_are_shared_as_its_slots_are(driver: Driver) -> None:
    def share(**labels: str) -> Share:
        return driver.database.read(
            lambda session: slot_shares.share_of_another(session, "default", TARGET, labels, alive_seconds=90)
        )

    assert share() == Share(1, 1.0), "nobody lives: as if one came"
    driver.add_worker(slots=8)
    assert share() == Share(8, 1.0)
    driver.step(_auto(driver))
    assert share() == Share(4, 0.5)
    driver.add_worker(slots=1)
    assert share() == Share(4, 1.0)
    driver.add_worker(slots=2, labels={"site": "a"})
    assert share(site="a") == Share(1, 0.5), "workers without the label serve it not"
    assert share(site="b") == Share(1, 1.0)
