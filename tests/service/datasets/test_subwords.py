"""Texts as parts of words: byte-level BPE trained on the training split, and tokenizers that are given."""

from __future__ import annotations

import hashlib
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from service.datasets.texts import tokenizing_process, utf8
from service.datasets.texts.subwords import SubwordTokenizer
from service.errors import UnprocessableError


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here: tokenizers are files."""
    return migrated_sqlite_url


TEXT = "".join(f"{number} grüne Flaschen hängen an der Wand, {number * 7}\n" for number in range(300)).encode()


def upload(
    client: TestClient, content: bytes = TEXT, name: str = "walls", tokenizer_file: Any = None, **fields: str
) -> Any:
    sent: dict[str, Any] = {"file": ("walls.txt", content)}
    if tokenizer_file is not None:
        sent["tokenizer_file"] = ("tokenizer.json", tokenizer_file)
    return client.post("/v1/datasets", data={"name": name, **fields}, files=sent)


def tokens(client: TestClient, split: str, name: str = "walls") -> list[int]:
    answer = client.get(f"/v1/datasets/{name}/content", params={"part": split})
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
        return arrays["tokens"].tolist()


def stored_tokenizer(client: TestClient, name: str = "walls") -> Tokenizer:
    return Tokenizer.from_str(client.get(f"/v1/datasets/{name}/tokenizer").text)


def given_tokenizer(**changes: Any) -> bytes:
    """A byte-level tokenizer.json of 256 tokens."""
    tokenizer = Tokenizer(
        models.BPE({symbol: n for n, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    written = json.loads(tokenizer.to_str())
    written["model"] |= changes
    return json.dumps(written).encode()


def test_a_tokenizer_is_trained_on_the_training_split_alone(client: TestClient) -> None:
    unseen = "Quasselstrippenquasselei " * 64
    dataset = upload(client, TEXT + unseen.encode(), tokenizer="bpe:400", validation="0.15").json()
    assert dataset["tokenizer"] == dataset["facts"]["tokenizer"] == "bpe:400"
    assert dataset["facts"]["vocabulary_size"] == 400
    tokenizer = stored_tokenizer(client)
    whole = "".join(tokenizer.decode(tokens(client, split)) for split in ("training", "validation"))
    assert whole.encode() == TEXT + unseen.encode(), "nothing is lost"
    assert len(tokenizer.encode(" Flaschen").tokens) == 1
    assert len(tokenizer.encode(" Quasselstrippenquasselei").tokens) > 8, "it was not looked at"


def test_text_is_cut_before_it_is_tokenized(client: TestClient) -> None:
    upload(client, name="letters", tokenizer="char", validation="0.2", test="0.1")
    dataset = upload(client, tokenizer="bpe:300", validation="0.2", test="0.1").json()
    letters = client.get("/v1/datasets/letters").json()
    for split in ("training", "validation"):
        text = "".join(letters["facts"]["vocabulary"][token] for token in tokens(client, split, "letters"))
        assert stored_tokenizer(client).decode(tokens(client, split)) == text, "the same characters are held out"
        assert dataset["parts"][split]["bytes"] == letters["parts"][split]["bytes"] == len(text.encode())
    assert sum(split["bytes"] for split in dataset["parts"].values()) == len(TEXT)


def test_the_tokenizer_is_part_of_the_content(client: TestClient) -> None:
    first = upload(client, tokenizer="bpe:300").json()
    assert upload(client, tokenizer="bpe:300").status_code == 200, "the same text gives the same tokenizer"
    assert upload(client, tokenizer="bpe:301").status_code == 409
    answer = client.get(f"/v1/datasets/{first['id']}/tokenizer")
    assert answer.headers["content-type"] == "application/json"
    digest = hashlib.sha256(answer.content).hexdigest()
    assert digest == first["facts"]["tokenizer_sha256"]
    again = client.get("/v1/datasets/walls/tokenizer", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_a_given_tokenizer_is_stored_as_it_came(client: TestClient) -> None:
    tokenizer = given_tokenizer()
    dataset = upload(client, tokenizer_file=tokenizer).json()
    assert (dataset["tokenizer"], dataset["facts"]["vocabulary_size"]) == ("file", 256)
    assert client.get("/v1/datasets/walls/tokenizer").content == tokenizer
    assert len(tokens(client, "training")) == dataset["parts"]["training"]["bytes"], "each byte is a token"
    profile = dataset["profile"]
    assert profile["vocabulary_size"] == 256
    assert (
        0
        < profile["baselines_nats"]["bigram"]
        < profile["baselines_nats"]["unigram"]
        < profile["baselines_nats"]["uniform"]
    )
    assert profile["lines"]["training"] > 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{}", "is no tokenizer"),
        (b"", "is no tokenizer"),
        (b"\xff\xfe", "is not UTF-8"),
        (b'{"version": "1.0", "model": {"type": "pickle"}}', "is no tokenizer"),
        (given_tokenizer(dropout=0.1), "dropout"),
        (given_tokenizer(vocab={}), "2 to 1,048,576"),
        (given_tokenizer(vocab={"a": 0, "b": 4_000_000_000}), "2 to 1,048,576"),
    ],
)
def test_what_is_no_tokenizer_is_refused_with_the_reason(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(UnprocessableError) as refused:
        SubwordTokenizer.read(path)
    assert said in str(refused.value)


def test_fields_that_name_no_tokenizer_are_refused_with_the_reason(client: TestClient) -> None:
    given = given_tokenizer()
    for fields, tokenizer_file, said in (
        ({"tokenizer": "bpe:256"}, None, "bpe:N"),
        ({"tokenizer": "bpe:9999999"}, None, "bpe:N"),
        ({"tokenizer": "bpe:"}, None, "bpe:N"),
        ({"tokenizer": "char"}, given, "is named beside a file"),
        ({"task": "seq2seq"}, given, "does not go with seq2seq"),
        ({}, b"{}", "is no tokenizer"),
        ({}, given_tokenizer(vocab={"x": 0, "y": 1}), "the training split has"),
    ):
        answer = upload(client, tokenizer_file=tokenizer_file, **fields)
        assert answer.status_code == 422, answer.text
        assert said in answer.json()["detail"]


def test_a_tokenizer_takes_no_more_memory_than_it_may(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing_process, "ADDRESS_SPACE_BYTES", 800 << 20)
    greedy = json.loads(given_tokenizer())
    greedy["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 1000} for _ in range(5)],
    }
    answer = upload(client, tokenizer_file=json.dumps(greedy).encode())
    assert answer.status_code == 422, answer.text
    assert "more memory or time than it may" in answer.json()["detail"]


def test_a_tokenizer_that_loses_text_gives_no_bits_per_byte(client: TestClient) -> None:
    dataset = upload(client, tokenizer_file=given_tokenizer(vocab={"a": 0, "e": 1})).json()
    assert "does not give the text back" in dataset["profile"]["notes"][0]
    assert dataset["parts"]["validation"]["bytes"] is None


def test_a_dataset_without_parts_of_words_has_no_tokenizer(client: TestClient) -> None:
    for dataset in ("python-topics", "digits", "nothing"):
        assert client.get(f"/v1/datasets/{dataset}/tokenizer").status_code == 404


def test_text_that_is_not_utf8_is_refused_with_the_byte(client: TestClient) -> None:
    answer = upload(client, b"x" * 1000 + b"\xff" + b"y" * 1000, tokenizer="bpe:300")
    assert (answer.status_code, answer.json()["byte_offset"]) == (422, 1000)
    assert "NUL" in upload(client, b"NUL \0" * 400, tokenizer="bpe:300").json()["detail"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "one line after another\n" * 9,
        "with carriage returns\r\n" * 9,
        "\n\n \n" * 40,
        "no end of a line, and no end of it either " * 4,
        "üöä😀" * 30,
        "a\n\n\nb  \n c\n" * 20,
    ],
)
def test_a_text_in_pieces_has_the_words_of_the_whole(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utf8, "PIECE_BYTES", 50)
    path = tmp_path / "text"
    path.write_bytes(b"before" + text.encode() + b"after")
    pieces = list(utf8.pieces(utf8.ByteRange(path, 6, 6 + len(text.encode()))))
    assert "".join(pieces) == text
    if "\n" in text and text.strip():
        words = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
        assert [word for piece in pieces for word, _ in words(piece)] == [word for word, _ in words(text)]


def test_words_have_the_tokens_that_they_have_in_their_text() -> None:
    source = random.Random(0)
    letters = "ab'st ll \n\t\r12½²é\u3000\xa0😀.,!?-_\u0301\x0b\x1c"
    training = "it's a bat's stall, all 12 stalls; bell\n\n  a ball's still\tlast " * 20
    tokenizer = SubwordTokenizer.trained([training], 300)
    texts = ["".join(source.choices(letters, k=source.randrange(60))) for _ in range(500)]
    library = Tokenizer.from_str(tokenizer.written())
    assert [found.tolist() for found in tokenizer.encode(texts)] == [library.encode(text).ids for text in texts]


@pytest.mark.parametrize("text", ["", "plain", "äöü", "😀a€ß" * 3])
def test_the_bytes_of_characters_are_found(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utf8, "CHUNK_BYTES", 5)
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert utf8.count_characters(path) == len(text)
    places = list(range(len(text) + 1))
    assert utf8.byte_offsets(path, places) == [3 + len(text[:place].encode()) for place in places]
