"""A sweep is deleted by one API process while another confirms it, or promotes one of its trials: one is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.confirmation import confirmations
from service.database.models import Sweep, Trial
from service.errors import ConflictError, NotFoundError
from service.http.dependencies import Services
from service.promotion import promotion
from service.sweeps import sweeps
from tests.service.lock_races import raced

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


class Race:
    """The deletion and the confirmation of a sweep, each with what happens before its transaction ends."""

    def __init__(self, services: Services, sweep: str) -> None:
        self._database, self._sweep = services.database, sweep

    def confirm(self, meanwhile: Callable[[], object] = lambda: None) -> str:
        def write(session: Session) -> str:
            made = confirmations.create(session, self._sweep, seeds=1, candidates=1, max_attempts=3, alive_seconds=90)
            meanwhile()
            return made.sweep_id

        return self._database.write(write)

    def delete(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        def write(session: Session) -> None:
            confirmations.delete_of_sweep(session, self._sweep)
            sweeps.delete(session, self._sweep)
            meanwhile()

        self._database.write(write)

    def promote(self) -> None:
        of_sweep = sa.select(Trial.id).where(Trial.sweep_id == self._sweep).limit(1)
        trial = self._database.read(lambda session: session.scalars(of_sweep).one())
        self._database.write(lambda session: promotion.promote(session, trial))

    def is_there(self, sweep: str) -> bool:
        return self._database.read(lambda session: session.get(Sweep, sweep)) is not None


def test_a_sweep_that_is_being_confirmed_is_kept(
    client: TestClient, services: Services, make_sweep: Callable[[], str]
) -> None:
    race = Race(services, sweep := make_sweep())
    with pytest.raises(ConflictError, match="goes on"):
        raced(services.database, race.confirm, race.delete)[1].result()
    assert race.is_there(sweep)


def test_a_sweep_that_is_being_deleted_is_not_confirmed(
    client: TestClient, services: Services, make_sweep: Callable[[], str]
) -> None:
    race = Race(services, sweep := make_sweep())
    with pytest.raises(NotFoundError):
        raced(services.database, race.delete, race.confirm)[1].result()
    assert not race.is_there(sweep)


def test_a_trial_that_is_being_deleted_is_not_promoted(
    client: TestClient, services: Services, make_sweep: Callable[[], str]
) -> None:
    race = Race(services, make_sweep())
    with pytest.raises(NotFoundError):
        raced(services.database, race.delete, race.promote)[1].result()
