"""A dataset or a checkpoint is deleted by one API process while another stores a sweep of it, or deletes it, too: one
of the two is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.auth.projects import DEFAULT
from service.checkpoints import checkpoints
from service.database.checkpoint_models import Checkpoint
from service.database.models import Dataset
from service.database.sessions import Database
from service.datasets import datasets
from service.errors import ConflictError, NotFoundError
from service.settings import Settings
from service.sweeps import drafts, sweeps
from tests.service.lock_races import First, Second, raced
from tests.service.sweep_driver import Driver, small


class Race:
    """Two processes, one that stores a sweep of a dataset and a checkpoint, and one that deletes either."""

    def __init__(self, url: str, folder: Path, deleted: type[Dataset] | type[Checkpoint]) -> None:
        self._settings = Settings(database_url=url, data_dir=folder)
        self._stores, self._deletes = Database(url), Database(url)
        Driver(self._stores, self._settings).add_dataset()
        self._stores.write(lambda session: session.add(_checkpoint("small")))
        begins = {"initialize_from": "checkpoint:small"}
        self._prepared = drafts.prepare(self._stores, {**(given := small()), "training": given["training"] | begins})
        self._deleted = deleted

    def store(self, meanwhile: Callable[[], object] = lambda: None) -> str:
        def write(session: Session) -> str:
            sweep = sweeps.insert(session, self._prepared).id
            meanwhile()
            return sweep

        return self._stores.write(write)

    def delete(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        def record(session: Session, deleted: str) -> None:
            meanwhile()

        if self._deleted is Dataset:
            assert self._prepared.dataset_id is not None
            datasets.delete(self._deletes, self._settings, self._prepared.dataset_id, record=record)
        else:
            checkpoints.delete(self._deletes, self._settings, "small", DEFAULT, record)

    def meanwhile(
        self, first: Callable[[Callable[[], object]], First], second: Callable[[], Second]
    ) -> tuple[First, Future[Second]]:
        return raced(self._stores, first, second)

    def is_there(self) -> bool:
        return self._stores.read(lambda session: session.scalar(sa.select(self._deleted.id))) is not None

    def close(self) -> None:
        self._stores.close()
        self._deletes.close()


def _checkpoint(name: str) -> Checkpoint:
    return Checkpoint(
        id=name,
        name=name,
        architecture="Llama",
        task="causal_lm",
        sha256="0" * 64,
        size_bytes=1,
        parameter_count=1,
        config={},
        model={},
        created_at=0.0,
    )


@pytest.fixture(params=[Dataset, Checkpoint])
def race(postgres_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Race]:
    race = Race(postgres_url, tmp_path, request.param)
    yield race
    race.close()


def test_what_a_sweep_needs_that_is_being_stored_is_kept(race: Race) -> None:
    sweep, deletion = race.meanwhile(race.store, race.delete)
    with pytest.raises(ConflictError, match=sweep):
        deletion.result(60)
    assert race.is_there()


def test_a_sweep_that_needs_what_is_being_deleted_is_refused(race: Race) -> None:
    _, storing = race.meanwhile(race.delete, race.store)
    with pytest.raises(ConflictError, match="was deleted"):
        storing.result(60)
    assert not race.is_there()


def test_of_two_who_delete_it_the_second_finds_nothing(race: Race) -> None:
    _, again = race.meanwhile(race.delete, race.delete)
    with pytest.raises(NotFoundError):
        again.result(60)


def test_of_two_who_delete_what_shares_its_files_one_removes_them(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_url=postgres_url, data_dir=tmp_path)
    database, other = Database(postgres_url), Database(postgres_url)
    database.write(lambda session: session.add_all([_checkpoint("first"), _checkpoint("second")]))
    checkpoints.folder(settings, _checkpoint("").sha256).mkdir(parents=True)
    write = database.write

    def ends_late(change: Callable[[Session], str]) -> str:
        def changed(session: Session) -> str:
            answer = change(session)
            checkpoints.delete(other, settings, "second", DEFAULT, lambda *_: None)
            return answer

        return write(changed)

    monkeypatch.setattr(database, "write", ends_late)
    checkpoints.delete(database, settings, "first", DEFAULT, lambda *_: None)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    database.close()
    other.close()
