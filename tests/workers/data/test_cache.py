"""Datasets are downloaded once and are what the lease names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.workers.scripted_service import ScriptedService
from workers.data.batches import DataError
from workers.data.cache import DatasetCache, check_lengths
from workers.interruption import DrainedError, Interruption
from workers.service.client import ServiceClient
from workers.service.leased_trial import LeasedDataset, LeasedSplit


def _leased(scripted: ScriptedService) -> LeasedDataset:
    return LeasedDataset.of(scripted.lease()["dataset"])


def _text(name: str, **tokens: int) -> LeasedDataset:
    """A text whose splits have so many tokens."""
    splits = {split: LeasedSplit(sha256="", tokens=count) for split, count in tokens.items()}
    return LeasedDataset(id="D0", name=name, task="causal_lm", sha256="", facts={}, splits=splits)


def test_a_split_is_downloaded_once_and_shared_between_workers(scripted: ScriptedService, cache_dir: Path) -> None:
    dataset, interruption = _leased(scripted), Interruption()
    first = DatasetCache(scripted.client(), cache_dir)
    path = first.split(dataset, "training", interruption)
    assert path.read_bytes() == scripted.splits["training"]
    assert first.split(dataset, "training", interruption) == path
    assert DatasetCache(scripted.client(), cache_dir).split(dataset, "training", interruption) == path
    assert len(scripted.sent("download")) == 1


def test_a_damaged_file_of_the_cache_is_fetched_again(scripted: ScriptedService, cache_dir: Path) -> None:
    dataset = _leased(scripted)
    path = DatasetCache(scripted.client(), cache_dir).split(dataset, "training", Interruption())
    path.write_bytes(b"damaged")
    again = DatasetCache(scripted.client(), cache_dir).split(dataset, "training", Interruption())
    assert again.read_bytes() == scripted.splits["training"]


def test_content_that_is_not_what_the_lease_names_is_refused(scripted: ScriptedService, cache_dir: Path) -> None:
    dataset = _leased(scripted)
    scripted.splits["training"] = b"something else"
    with pytest.raises(DataError, match="another content"):
        DatasetCache(scripted.client(), cache_dir).split(dataset, "training", Interruption())
    assert list(cache_dir.iterdir()) == []


def test_a_refused_download_says_why(scripted: ScriptedService, cache_dir: Path) -> None:
    scripted.script = lambda verb, body: httpx2.Response(404, json={"detail": "there is no dataset D0"})
    cache = DatasetCache(scripted.client(), cache_dir)
    with pytest.raises(DataError, match=r"the training split of .* cannot be fetched: there is no dataset D0"):
        cache.split(_leased(scripted), "training", Interruption())
    with pytest.raises(DataError, match="the checkpoint 'gpt2' cannot be fetched"):
        cache.checkpoint("gpt2", "0" * 64, Interruption())
    assert list(cache_dir.iterdir()) == []


def test_a_download_is_tried_again_while_the_service_is_away(scripted: ScriptedService, cache_dir: Path) -> None:
    answers = [httpx2.Response(503, json={"detail": "starting"}), None]
    scripted.script = lambda verb, body: answers.pop(0)
    path = DatasetCache(scripted.client(), cache_dir).split(_leased(scripted), "training", Interruption())
    assert path.read_bytes() == scripted.splits["training"]


def test_a_download_goes_on_where_its_connection_broke(scripted: ScriptedService, cache_dir: Path) -> None:
    dataset, content = _leased(scripted), scripted.splits["training"]
    asked: list[str | None] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers.get("Range"))
        answer = scripted.handle(request)
        if len(asked) > 2:
            return answer
        half = answer.content[: len(answer.content) // 2]

        def broken() -> Iterator[bytes]:
            yield half
            raise httpx2.ReadError("the connection broke")

        return httpx2.Response(answer.status_code, content=broken())

    client = ServiceClient("http://service", transport=httpx2.MockTransport(handle))
    path = DatasetCache(client, cache_dir).split(dataset, "training", Interruption())
    assert path.read_bytes() == content
    half = len(content) // 2
    assert asked == [None, f"bytes={half}-", f"bytes={half + (len(content) - half) // 2}-"]
    assert list(cache_dir.iterdir()) == [path]


@pytest.mark.parametrize("left", [b"of other content", b"x" * 10_000_000])
def test_what_another_download_left_is_not_taken_for_this_one(
    left: bytes, scripted: ScriptedService, cache_dir: Path
) -> None:
    dataset = _leased(scripted)
    cache_dir.mkdir(exist_ok=True)
    (cache_dir / f".{dataset.splits['training'].sha256}.npz.part").write_bytes(left)
    path = DatasetCache(scripted.client(), cache_dir).split(dataset, "training", Interruption())
    assert path.read_bytes() == scripted.splits["training"]


def test_a_download_stops_when_the_attempt_does(scripted: ScriptedService, cache_dir: Path) -> None:
    interruption = Interruption()
    interruption.set(DrainedError("asked to stop"))
    with pytest.raises(DrainedError):
        DatasetCache(scripted.client(), cache_dir).split(_leased(scripted), "training", interruption)
    assert list(cache_dir.iterdir()) == []


def test_splits_too_short_for_the_windows_are_named() -> None:
    dataset = _text("tiny", training=32, validation=8)
    check_lengths(dataset, 31)
    with pytest.raises(DataError, match=r"training split of 'tiny' has 32 tokens.*at least 33"):
        check_lengths(dataset, 32)
    with pytest.raises(DataError, match="has no validation split"):
        check_lengths(_text("half", training=99), 8)


def test_the_bytes_of_a_token_are_those_of_the_validation_split() -> None:
    split = LeasedSplit(sha256="", tokens=200, bytes=700)
    of_bytes = LeasedDataset(id="D0", name="t", task="causal_lm", sha256="", facts={"tokenizer": "byte"}, splits={})
    counted = LeasedDataset(id="D0", name="t", task="causal_lm", sha256="", facts={}, splits={"validation": split})
    assert (of_bytes.bytes_per_token, counted.bytes_per_token) == (1.0, 3.5)
    assert _text("uncounted", validation=200).bytes_per_token is None
