"""What validation says of further trainings that a budget has no room for."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.common import schemas
from service.database.models import Sweep
from service.http.dependencies import Services
from service.sweeps import sweeps
from service.sweeps.drafts import ValidatedDocument
from tests.service.sweep_driver import Driver, document, small


@pytest.fixture(autouse=True)
def letters(client: TestClient, services: Services) -> None:
    Driver(services.database, services.settings).add_dataset()


def noted(client: TestClient, written: dict[str, Any], **parameters: str) -> list[tuple[str, str, str]]:
    answer = client.post("/v1/sweeps", json=written, params=parameters)
    assert answer.status_code in (200, 201), answer.text
    return [(note["pointer"], note["detail"], note["remedy"]) for note in answer.json().get("notes", [])]


def asked(trials: int, replicates: Any) -> dict[str, Any]:
    return small(budget={"trials": trials}, search={"sampler": "auto", "replicates": replicates})


def test_a_budget_that_is_too_small_for_one_further_training(client: TestClient) -> None:
    ((pointer, detail, remedy),) = noted(client, asked(6, 4), validate_only="true")
    assert pointer == "/search/replicates"
    assert detail == "nothing is trained again: 15% of a budget of 6 trials is less than one training"
    assert remedy == "give budget.trials at least 7, or leave replicates out"
    assert noted(client, asked(6, 4)) == [(pointer, detail, remedy)], "whoever submits reads it, too"
    assert noted(client, asked(7, 4)) == noted(client, asked(6, 0)) == noted(client, asked(6, "auto")) == []


def test_a_budget_that_covers_the_space_or_trains_again(client: TestClient) -> None:
    ((_, detail, remedy),) = noted(client, asked(12, 4), validate_only="true")
    assert "may take 1 of the 12 trials: as few as 11 of the 12 points of the space are tried then" in detail
    assert remedy == "give budget.trials 13, which has room for both, or leave replicates out"
    assert noted(client, asked(13, 4)) == noted(client, asked(11, 4)) == []


def test_what_is_noted_is_worked_out_before_the_sweep_is_stored(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    notes, insert = ValidatedDocument.notes, sweeps.insert

    def noting(document: ValidatedDocument) -> list[schemas.ProblemItem]:
        order.append("notes")
        return notes(document)

    def inserting(*given: Any, **named: Any) -> Sweep:
        order.append("insert")
        return insert(*given, **named)

    monkeypatch.setattr(ValidatedDocument, "notes", noting)
    monkeypatch.setattr(sweeps, "insert", inserting)
    assert len(noted(client, asked(12, 4))) == 1
    assert order == ["notes", "insert"]


def test_points_that_a_rule_rejects_take_no_trial(client: TestClient) -> None:
    written = asked(12, 4) | {"rules": ["num_layers < 3"]}
    assert noted(client, written, validate_only="true") == []


def test_nothing_is_said_of_a_space_without_an_end(client: TestClient) -> None:
    written = document(budget={"trials": 20}, search={"sampler": "auto", "replicates": 4})
    assert noted(client, written, validate_only="true") == []
