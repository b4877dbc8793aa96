"""Every sampler suggests the points that it always did, and they are hashed as they always were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from service.database.sessions import Database
from service.leases import reuse_keys
from service.scheduling import proposals
from service.settings import Settings
from tests.golden.hashes import hashed_documents, hashes
from tests.golden.recordings import RENEWS, ChangedError, compare
from tests.golden.sampled_points import DOCUMENTS, SAMPLERS, chosen_sampler, driver, points
from tests.service.sweep_driver import Driver

planted = pytest.mark.skipif(RENEWS, reason="nothing planted is recorded")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """On SQLite alone: that both databases suggest the same is asked elsewhere."""
    folder = tmp_path_factory.mktemp("points")
    url = f"sqlite:///{folder}/layersweep.db"
    database = Database(url)
    database.upgrade()
    yield driver(database, Settings(database_url=url, data_dir=folder))
    database.close()


def _compare(name: str, found: Any) -> None:
    compare(name, json.dumps(found, indent=1, ensure_ascii=False))


def _lines(found: dict[str, list[Any]]) -> str:
    """One point a line."""
    return "\n".join(f"{name} {json.dumps(each)}" for name, listed in found.items() for each in listed)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_first_points_are_the_recorded_ones(scheduler: Driver, kind: str, sampler: str) -> None:
    compare(f"points/{kind}-{sampler}.txt", _lines(points(scheduler, kind, sampler)))


def test_auto_chooses_the_recorded_sampler(scheduler: Driver) -> None:
    _compare("points/auto.json", {kind: chosen_sampler(scheduler, kind) for kind in DOCUMENTS})


@planted
def test_another_point_is_noticed(scheduler: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "MAX_CONSECUTIVE_REFUSALS", 0)
    with pytest.raises(ChangedError, match="points/flat-random"):
        compare("points/flat-random.txt", _lines(points(scheduler, "flat", "random")))


@pytest.fixture(scope="module")
def hashed() -> dict[str, Any]:
    return {name: hashes(written) for name, written in hashed_documents().items()}


def test_documents_and_points_have_the_recorded_hashes(hashed: dict[str, Any]) -> None:
    _compare("hashes.json", hashed)


@planted
@pytest.mark.parametrize(
    ("changed", "change"),
    [
        ("document", {"name": "flat "}),
        ("point_hash", {"inference": {"batch_size": 2, "sequence_length": 16}}),
        ("reuse_key", {}),
    ],
)
def test_another_hash_is_noticed(
    hashed: dict[str, Any], changed: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse_keys, "__version__", "0.0.0")
    planted = hashes({**hashed_documents()["flat"], **change})
    with pytest.raises(ChangedError, match=f"(?s)hashes.json.*{changed}"):
        _compare("hashes.json", {**hashed, "flat": planted})
