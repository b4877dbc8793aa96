"""`budget.device_seconds`: what the attempts of a sweep take of their devices is counted, and ends it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.database.sessions import Database
from service.errors import ConflictError, InvalidDocumentError, UnprocessableError
from service.settings import Settings
from service.sweeps import budgets, sweeps
from service.sweeps import schemas as sweep_schemas
from tests.service.sweep_driver import Driver, Outcome, formula, small


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    driver = Driver(database, settings.model_copy(update={"scheduler_lookahead": 1}))
    driver.add_dataset()
    return driver


def ten_seconds(configuration: Mapping[str, Any]) -> Outcome:
    outcome, metrics = formula(configuration)
    return outcome, metrics | {"device_seconds": 10.0}


def _limited(driver: Driver, **budget: Any) -> str:
    return driver.post(small(budget={"trials": 12, "parallel": 1, "device_seconds": 35} | budget))


def _extend(driver: Driver, sweep: str, **added: Any) -> None:
    extension = sweep_schemas.BudgetExtension(**added)
    driver.database.write(lambda session: budgets.extend(session, sweep, extension).id)


def test_a_sweep_ends_when_its_device_time_is_used_up(driver: Driver) -> None:
    sweep = _limited(driver)
    ended = driver.run_to_the_end(sweep, ten_seconds)
    shown = driver.shown(sweep)
    assert (ended.state, ended.reason, shown.end_code) == ("completed", "device_seconds", "device_seconds")
    assert (shown.device_seconds, shown.budget.device_seconds) == (40.0, 35.0)
    assert sum(shown.progress.model_dump()[state] for state in ("complete", "infeasible", "pruned", "failed")) == 4
    assert driver.claim() is None


def test_a_sweep_without_that_budget_only_counts(driver: Driver) -> None:
    sweep = _limited(driver, device_seconds=None)
    driver.run_to_the_end(sweep, ten_seconds)
    shown = driver.shown(sweep)
    assert (shown.end_code, shown.device_seconds) == ("budget_exhausted", 120.0)


def test_more_device_time_lets_it_go_on(driver: Driver) -> None:
    sweep = _limited(driver)
    driver.run_to_the_end(sweep, ten_seconds)
    with pytest.raises(UnprocessableError, match="used up already") as refused:
        _extend(driver, sweep, device_seconds=5)
    assert refused.value.problems[0].pointer == "/device_seconds"
    assert "more than 5" in refused.value.problems[0].remedy
    with pytest.raises((ConflictError, UnprocessableError)):
        _extend(driver, sweep, trials=1)
    _extend(driver, sweep, device_seconds=25)
    ended = driver.run_to_the_end(sweep, ten_seconds)
    assert (ended.reason, driver.shown(sweep).device_seconds, ended.budget["device_seconds"]) == (
        "device_seconds",
        60.0,
        60.0,
    )


def test_a_budget_that_is_not_there_is_not_extended(driver: Driver) -> None:
    sweep = driver.post(small(budget={"trials": 12}))
    with pytest.raises(UnprocessableError, match="no limit of device time"):
        _extend(driver, sweep, device_seconds=5)


def test_a_sweep_of_an_older_version_has_no_such_budget(driver: Driver) -> None:
    sweep = _limited(driver)
    budget = {name: value for name, value in driver.sweep(sweep).budget.items() if name != "device_seconds"}
    driver.set(sweep, budget=budget)
    assert driver.run_to_the_end(sweep, ten_seconds).reason == "budget_exhausted"
    assert driver.shown(sweep).budget.device_seconds is None


@pytest.mark.parametrize("seconds", [0, -1, "1 h", True, 1e9])
def test_a_limit_that_cannot_be_is_refused(driver: Driver, seconds: Any) -> None:
    with pytest.raises(InvalidDocumentError) as refused:
        _limited(driver, device_seconds=seconds)
    assert [problem.pointer for problem in refused.value.problems] == ["/budget/device_seconds"]


def test_the_page_shows_it_and_offers_to_extend_it(client: TestClient, served_rows: Any) -> None:
    sweep = served_rows.sweep(1)
    budget = {"trials": 9, "parallel": 1, "failures": 3, "wall_seconds": None, "device_seconds": 120.0}
    served_rows.update(sweeps.Sweep, sweep, budget=budget, device_seconds=60.0)
    page = client.get(f"/sweeps/{sweep}").text
    assert "1 min of 2 min device time" in page
    assert 'name="device_seconds"' in page
    ended = {"state": "completed", "reason": "device_seconds", "device_seconds": 121.0, "ended_at": 1.0}
    served_rows.update(sweeps.Sweep, sweep, **ended)
    page = client.get(f"/sweeps/{sweep}").text
    assert ('name="device_seconds"' in page, 'name="trials"' in page) == (True, False)


# --- costs that depend on load ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["build_seconds", "train_seconds", "device_seconds"])
@pytest.mark.parametrize("parallel", ["auto", 2])
def test_costs_that_depend_on_load_are_refused_where_trials_may_run_at_once(
    driver: Driver, metric: str, parallel: int | str
) -> None:
    written = small(budget={"parallel": parallel})
    written |= {"objectives": [{"metric": "latency_ms_p50"}, {"metric": metric}], "constraints": [f"{metric} <= 60"]}
    with pytest.raises(InvalidDocumentError) as refused:
        driver.post(written)
    assert [problem.pointer for problem in refused.value.problems] == ["/objectives/1/metric", "/constraints/0"]
    assert all("budget.parallel: 1" in problem.remedy for problem in refused.value.problems)
    driver.post(written | {"budget": {"trials": 4, "parallel": 1}})


def test_a_sweep_that_was_accepted_before_goes_on(driver: Driver) -> None:
    written = small(budget={"trials": 4, "parallel": 1}) | {"constraints": ["build_seconds <= 60"]}
    driver.add_worker()
    sweep = driver.post(written)
    document = driver.sweep(sweep).document
    driver.set(sweep, document=document | {"budget": document["budget"] | {"parallel": 2}}, effective_parallel=2)
    driver.step(sweep)
    assert len(driver.trials(sweep)) > 0
