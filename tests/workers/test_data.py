"""Batches hold every token once; datasets are downloaded once and are what the lease names."""

from __future__ import annotations

from pathlib import Path

import httpx2
import numpy as np
import pytest

from tests.workers.conftest import ScriptedService
from workers.batches import Batches, DataError, evaluation_batches, load_tokens
from workers.data import DatasetCache, check_lengths
from workers.interruption import Drained, Interruption
from workers.service_client import Refused


@pytest.mark.parametrize(("count", "batch_size"), [(2, 1), (33, 4), (97, 4), (100, 1), (1000, 7)])
def test_every_token_but_the_first_is_a_target_once(count: int, batch_size: int) -> None:
    tokens = np.arange(1000, 1000 + count)
    batches = evaluation_batches(tokens, sequence_length=16, batch_size=batch_size)
    counted = batches.weights > 0
    assert batches.inputs.shape == batches.targets.shape == batches.weights.shape
    assert batches.inputs.shape[1:] == (batch_size, 16)
    assert batches.targets[counted].tolist() == tokens[1:].tolist()
    assert batches.inputs[counted].tolist() == tokens[:-1].tolist()
    assert not batches.inputs[~counted & (batches.inputs < 1000)].any()
    assert (batches.inputs.dtype, batches.targets.dtype, batches.weights.dtype) == (np.int32, np.int32, np.float32)


def test_a_sample_is_full_windows_spread_over_the_part() -> None:
    tokens = np.arange(16 * 100 + 5)
    batches = evaluation_batches(tokens, sequence_length=16, batch_size=4, windows_at_most=10)
    assert batches.weights.sum() == 10 * 16
    starts = batches.inputs.reshape(-1, 16)[:10, 0]
    assert starts.tolist() == [160 * number for number in range(10)]


def test_a_sample_larger_than_the_part_is_the_part() -> None:
    tokens = np.arange(100)
    whole = evaluation_batches(tokens, sequence_length=16, batch_size=4)
    sample = evaluation_batches(tokens, sequence_length=16, batch_size=4, windows_at_most=1000)
    assert (whole.inputs == sample.inputs).all()
    assert (whole.weights == sample.weights).all()


def test_batches_come_back_from_their_file(tmp_path: Path) -> None:
    batches = evaluation_batches(np.arange(100), sequence_length=16, batch_size=4)
    batches.save(tmp_path / "batches.npz")
    again = Batches.load(tmp_path / "batches.npz")
    assert (again.inputs == batches.inputs).all()
    assert (again.targets == batches.targets).all()
    assert (again.weights == batches.weights).all()


def test_one_token_has_nothing_to_predict() -> None:
    with pytest.raises(DataError, match="no next token"):
        evaluation_batches(np.arange(1), sequence_length=4, batch_size=1)


def test_tokens_must_be_a_row_of_integers(tmp_path: Path) -> None:
    np.savez(tmp_path / "part.npz", tokens=np.zeros((2, 2)))
    with pytest.raises(DataError, match="not a row of integers"):
        load_tokens(tmp_path / "part.npz")


def test_a_part_is_downloaded_once_and_shared_between_workers(scripted: ScriptedService, cache_dir: Path) -> None:
    dataset, interruption = scripted.lease()["dataset"], Interruption()
    first = DatasetCache(scripted.client(), cache_dir)
    path = first.part(dataset, "training", interruption)
    assert path.read_bytes() == scripted.parts["training"]
    assert first.part(dataset, "training", interruption) == path
    assert DatasetCache(scripted.client(), cache_dir).part(dataset, "training", interruption) == path
    assert len(scripted.sent("download")) == 1


def test_a_damaged_file_of_the_cache_is_fetched_again(scripted: ScriptedService, cache_dir: Path) -> None:
    dataset = scripted.lease()["dataset"]
    path = DatasetCache(scripted.client(), cache_dir).part(dataset, "training", Interruption())
    path.write_bytes(b"damaged")
    again = DatasetCache(scripted.client(), cache_dir).part(dataset, "training", Interruption())
    assert again.read_bytes() == scripted.parts["training"]


def test_content_that_is_not_what_the_lease_names_is_refused(scripted: ScriptedService, cache_dir: Path) -> None:
    dataset = scripted.lease()["dataset"]
    scripted.parts["training"] = b"something else"
    with pytest.raises(DataError, match="another content"):
        DatasetCache(scripted.client(), cache_dir).part(dataset, "training", Interruption())
    assert list(cache_dir.iterdir()) == []


def test_a_refused_download_says_why(scripted: ScriptedService, cache_dir: Path) -> None:
    scripted.script = lambda verb, body: httpx2.Response(404, json={"detail": "there is no dataset D0"})
    with pytest.raises(Refused, match="there is no dataset D0"):
        DatasetCache(scripted.client(), cache_dir).part(scripted.lease()["dataset"], "training", Interruption())
    assert list(cache_dir.iterdir()) == []


def test_a_download_is_tried_again_while_the_service_is_away(scripted: ScriptedService, cache_dir: Path) -> None:
    answers = [httpx2.Response(503, json={"detail": "starting"}), None]
    scripted.script = lambda verb, body: answers.pop(0)
    path = DatasetCache(scripted.client(), cache_dir).part(scripted.lease()["dataset"], "training", Interruption())
    assert path.read_bytes() == scripted.parts["training"]


def test_a_download_stops_when_the_attempt_does(scripted: ScriptedService, cache_dir: Path) -> None:
    interruption = Interruption()
    interruption.set(Drained("asked to stop"))
    with pytest.raises(Drained):
        DatasetCache(scripted.client(), cache_dir).part(scripted.lease()["dataset"], "training", interruption)
    assert list(cache_dir.iterdir()) == []


def test_parts_too_short_for_the_windows_are_named() -> None:
    dataset = {"name": "tiny", "parts": {"training": {"tokens": 32}, "validation": {"tokens": 8}}}
    check_lengths(dataset, 31)
    with pytest.raises(DataError, match=r"training part of 'tiny' has 32 tokens.*at least 33"):
        check_lengths(dataset, 32)
    with pytest.raises(DataError, match="has no validation part"):
        check_lengths({"name": "half", "parts": {"training": {"tokens": 99}}}, 8)
