"""A dataset is deleted by one API process while another stores a sweep of it or deletes it: one of the two is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.models import Dataset
from service.database.sessions import Database
from service.datasets import datasets
from service.errors import ConflictError, NotFoundError
from service.settings import Settings
from service.sweeps import drafts, sweeps
from tests.service.sweep_driver import Driver, small

WAITS = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


class Race:
    """Two processes, one that stores a sweep of a dataset and one that deletes the dataset."""

    def __init__(self, url: str, folder: Path) -> None:
        self._settings = Settings(database_url=url, data_dir=folder)
        self._stores, self._deletes = Database(url), Database(url)
        Driver(self._stores, self._settings).add_dataset()
        self._prepared = drafts.prepare(self._stores, small())
        assert self._prepared.dataset_id is not None
        self._dataset = self._prepared.dataset_id

    def store(self, meanwhile: Callable[[], object] = lambda: None) -> str:
        def write(session: Session) -> str:
            sweep = sweeps.insert(session, self._prepared).id
            meanwhile()
            return sweep

        return self._stores.write(write)

    def delete(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        def record(session: Session, dataset: str) -> None:
            meanwhile()

        datasets.delete(self._deletes, self._settings, self._dataset, record=record)

    def await_lock(self) -> None:
        """Until a transaction waits for another's lock."""
        deadline = time.monotonic() + 30
        with self._stores.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not connection.execute(WAITS).scalar_one():
                assert time.monotonic() < deadline, "nobody waits for a lock"

    def dataset_is_there(self) -> bool:
        return self._stores.read(lambda session: session.get(Dataset, self._dataset)) is not None

    def close(self) -> None:
        self._stores.close()
        self._deletes.close()


@pytest.fixture
def race(postgres_url: str, tmp_path: Path) -> Iterator[Race]:
    race = Race(postgres_url, tmp_path)
    yield race
    race.close()


def test_a_dataset_whose_sweep_is_being_stored_is_kept(race: Race) -> None:
    with ThreadPoolExecutor(1) as threads:
        deletion = []

        def delete_meanwhile() -> None:
            deletion.append(threads.submit(race.delete))
            race.await_lock()

        sweep = race.store(delete_meanwhile)
        with pytest.raises(ConflictError, match=sweep):
            deletion[0].result(60)
    assert race.dataset_is_there()


def test_a_sweep_whose_dataset_is_being_deleted_is_refused(race: Race) -> None:
    with ThreadPoolExecutor(1) as threads:
        storing = []

        def store_meanwhile() -> None:
            storing.append(threads.submit(race.store))
            race.await_lock()

        race.delete(store_meanwhile)
        with pytest.raises(ConflictError, match="was deleted while"):
            storing[0].result(60)
    assert not race.dataset_is_there()


def test_of_two_who_delete_a_dataset_the_second_finds_none(race: Race) -> None:
    with ThreadPoolExecutor(1) as threads:
        again = []

        def delete_meanwhile() -> None:
            again.append(threads.submit(race.delete))
            race.await_lock()

        race.delete(delete_meanwhile)
        with pytest.raises(NotFoundError):
            again[0].result(60)
