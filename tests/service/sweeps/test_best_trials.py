"""The best trial of each objective, and what it costs to ask for those of a whole page."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.database.models import Sweep
from service.database.sessions import Database
from service.http.dependencies import Services
from service.sweeps.best_trials import best_of_each, best_trials
from tests.service.statements import recorded_statements
from tests.service.sweep_rows import add_sweep, add_trial

ACCURACY = [{"metric": "accuracy", "goal": "maximize"}]


def test_each_objective_names_its_own_best_feasible_trial(database: Database) -> None:
    def fill(session: Session) -> dict[str, tuple[int, float]]:
        sweep = add_sweep(session)
        add_trial(session, sweep, 0, {"latency_ms_p50": 0.5, "validation_loss": 0.5}, feasible=False)
        add_trial(session, sweep, 1, {"latency_ms_p50": 2.0, "validation_loss": 1.0})
        add_trial(session, sweep, 3, {"latency_ms_p50": 1.0, "validation_loss": 2.0})
        add_trial(session, sweep, 2, {"latency_ms_p50": 1.0, "validation_loss": 3.0})
        add_trial(session, sweep, 4, {"latency_ms_p50": 0.1}, state="infeasible", feasible=False)
        return {name: (each.number, each.value) for name, each in best_trials(session, sweep).items()}

    found = database.write(fill)
    assert found == {"latency_ms_p50": (2, 1.0), "validation_loss": (1, 1.0)}, "the first of equals"
    assert list(found) == ["latency_ms_p50", "validation_loss"], "in the order of the objectives"


def test_sweeps_of_one_page_keep_their_own_goals(database: Database) -> None:
    def fill(session: Session) -> list[dict[str, int]]:
        sweeps = [add_sweep(session), add_sweep(session, objectives=ACCURACY), add_sweep(session)]
        for sweep in sweeps[:2]:
            for number in range(3):
                metrics = {"latency_ms_p50": 3.0 - number, "validation_loss": 1.0 + number, "accuracy": number / 4}
                add_trial(session, sweep, number, metrics)
        found = best_of_each(session, sweeps)
        return [{name: each.number for name, each in found[sweep.id].items()} for sweep in sweeps]

    assert database.write(fill) == [{"latency_ms_p50": 2, "validation_loss": 0}, {"accuracy": 2}, {}]


@pytest.mark.parametrize("path", ["/", "/v1/sweeps?page_size=50"])
def test_a_list_of_sweeps_asks_the_database_as_often_however_long_it_is(
    client: TestClient, services: Services, path: str
) -> None:
    def add(session: Session) -> Sweep:
        sweep = add_sweep(session)
        add_trial(session, sweep, 0, {"latency_ms_p50": 1.0, "validation_loss": 1.0})
        return sweep

    def asked() -> int:
        with recorded_statements() as statements:
            assert client.get(path).status_code == 200
        return len(statements)

    services.database.write(lambda session: add(session).id)
    asked()
    of_one = asked()
    services.database.write(lambda session: [add(session).id for _ in range(20)])
    assert asked() == of_one
