"""Downloads: whole files with the bytes that they are listed with, or none."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest

from layersweep import transport
from layersweep.errors import NotFoundError, ServiceFailureError
from tests.layersweep.answers import page, problem, scripted, sweep_record

WEIGHTS = bytes(range(256)) * 1000
LISTED = {"name": "model.safetensors", "sha256": hashlib.sha256(WEIGHTS).hexdigest()}


def broken_off() -> httpx2.Response:
    def pieces() -> Iterator[bytes]:
        yield WEIGHTS[:1000]
        raise httpx2.ReadError("lost")

    return httpx2.Response(200, content=pieces())


def test_a_download_that_breaks_off_is_begun_anew(tmp_path: Path) -> None:
    client, script, _ = scripted(page([LISTED]), broken_off(), httpx2.Response(200, content=WEIGHTS))
    (file,) = client.download_artifacts("01J0000000000000000000000A", tmp_path / "kept")
    assert file.read_bytes() == WEIGHTS
    assert len(script.requests) == 3


def test_a_download_that_breaks_off_late_is_begun_anew_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time_s = 0.0

    def pieces() -> Iterator[bytes]:
        nonlocal time_s
        time_s += 3600.0
        yield WEIGHTS[:-1]
        raise httpx2.ReadError("lost")

    monkeypatch.setattr(transport, "time", SimpleNamespace(monotonic=lambda: time_s))
    late = httpx2.Response(200, content=pieces())
    client, _, _ = scripted(page([LISTED]), late, httpx2.Response(200, content=WEIGHTS))
    (file,) = client.download_artifacts("01J0000000000000000000000A", tmp_path)
    assert file.read_bytes() == WEIGHTS


def test_the_tokenizer_of_parts_of_words_comes_with_a_trial(tmp_path: Path) -> None:
    tokenizer = b'{"version": "1.0"}'
    digest = hashlib.sha256(tokenizer).hexdigest()
    kept = httpx2.Response(200, content=tokenizer, headers={"ETag": f'"{digest}"'})

    def downloaded(described: object, *answers: httpx2.Response) -> list[str]:
        content = json.dumps(described).encode()
        listed = {"name": "configuration.json", "sha256": hashlib.sha256(content).hexdigest()}
        client, _, _ = scripted(page([listed]), httpx2.Response(200, content=content), *answers)
        return [path.name for path in client.download_artifacts("01J0000000000000000000000A", tmp_path)]

    def of(digest: str) -> object:
        return {"dataset": {"name": "words", "facts": {"tokenizer_sha256": digest}}}

    assert downloaded(of(digest), kept) == ["configuration.json", "tokenizer.json"]
    assert (tmp_path / "tokenizer.json").read_bytes() == tokenizer
    assert downloaded(of("of another"), kept) == ["configuration.json"], "the dataset of this name is another one now"
    assert downloaded(of(digest), problem(404, "not-found", "there is none")) == ["configuration.json"]
    assert downloaded({"dataset": {"name": "bytes", "facts": {}}}) == ["configuration.json"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, content=WEIGHTS[:-1]),
        httpx2.Response(302, headers={"Location": "https://elsewhere.test/"}, html="<p>Found</p>"),
    ],
)
def test_other_bytes_than_the_listed_ones_leave_no_file(answer: httpx2.Response, tmp_path: Path) -> None:
    client, _, _ = scripted(page([LISTED]), answer)
    with pytest.raises(ServiceFailureError):
        client.download_artifacts("01J0000000000000000000000A", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_transformers_is_unpacked(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.safetensors", WEIGHTS)
    client, _, _ = scripted(broken_off(), httpx2.Response(200, content=packed.getvalue()))
    files = client.download_transformers("01J0000000000000000000000A", tmp_path / "winner")
    assert {file.name: file.read_bytes() for file in files} == {"config.json": b"{}", "model.safetensors": WEIGHTS}
    client, _, _ = scripted(problem(404, "not-found", "it left no weights"))
    with pytest.raises(NotFoundError, match="no weights"):
        client.download_transformers("01J0000000000000000000000A", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_export_is_not_what_an_address_in_front_answers(tmp_path: Path) -> None:
    moved = httpx2.Response(308, headers={"Location": "https://service.test/"}, html="<p>Moved</p>")
    client, _, _ = scripted(httpx2.Response(200, json=sweep_record()), moved)
    with pytest.raises(ServiceFailureError, match="sends on to https"):
        client.sweep("01J0000000000000000000000A").export(tmp_path / "rows.csv")
    assert list(tmp_path.iterdir()) == []
