from __future__ import annotations

import io
import json

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from layers.dataset_facts import BUILT_IN
from service.database.models import Dataset, Sweep
from service.database.sessions import now
from service.datasets import builtins, datasets

TEXT = "".join(f"{number} green bottles hanging on the wall\n" for number in range(99, 0, -1)).encode()
MULTIPART = "multipart/form-data; boundary=b"


def upload(client, content=TEXT, name="bottles", **fields):
    return client.post("/v1/datasets", data={"name": name, **fields}, files={"file": ("any name.txt", content)})


def tokens(client, dataset, split):
    answer = client.get(f"/v1/datasets/{dataset}/content", params={"part": split})
    assert answer.status_code == 200
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
        assert list(arrays) == ["tokens"]
        return arrays["tokens"], answer.headers["etag"].strip('"')


def test_bytes_come_back_as_they_were_sent(client):
    answer = upload(client, validation="0.2", test="0.1")
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{dataset['id']}"
    assert dataset["facts"] == {"tokenizer": "byte", "vocabulary_size": 256}
    assert dataset["size_bytes"] == len(TEXT)
    training, digest = tokens(client, dataset["id"], "training")
    validation, _ = tokens(client, "bottles", "validation")
    assert digest == dataset["parts"]["training"]["sha256"]
    assert (training.dtype, validation.dtype) == (np.uint8, np.uint8)
    sizes = [dataset["parts"][split]["tokens"] for split in ("training", "validation", "test")]
    assert sizes == [len(training), len(validation), round(len(TEXT) * 0.1)]
    assert sum(sizes) == len(TEXT)
    assert TEXT.startswith(training.tobytes() + validation.tobytes()), "splits are contiguous and in order"


def test_characters_are_numbered_over_the_whole_text(client):
    text = "añb😀" * 200 + "ü" * 89
    dataset = upload(client, text.encode(), tokenizer="char").json()
    vocabulary = dataset["facts"]["vocabulary"]
    assert vocabulary == sorted(set(text))
    training, _ = tokens(client, dataset["id"], "training")
    validation, _ = tokens(client, dataset["id"], "validation")
    assert "".join(vocabulary[token] for token in np.concatenate([training, validation])) == text
    unseen = dataset["profile"]["unseen_in_training"]
    assert unseen == {"kinds": ["ü"], "count": 1, "validation_tokens": 89}


def test_many_characters_take_a_wider_type(client):
    text = "".join(chr(0x4E00 + number % 3000) for number in range(9000))
    dataset = upload(client, text.encode(), tokenizer="char").json()
    assert dataset["facts"]["vocabulary_size"] == 3000
    training, _ = tokens(client, dataset["id"], "training")
    assert training.dtype == np.uint16


def test_the_test_split_is_held_back(client):
    upload(client, test="0.1")
    answer = client.get("/v1/datasets/bottles/content", params={"part": "test"})
    assert answer.status_code == 403
    assert "held back" in answer.json()["detail"]
    assert client.get("/v1/datasets/bottles/content", params={"part": "../training"}).status_code == 422


def test_content_is_not_sent_again_to_whom_has_it(client):
    upload(client)
    _, digest = tokens(client, "bottles", "training")
    answer = client.get(
        "/v1/datasets/bottles/content", params={"part": "training"}, headers={"If-None-Match": f'"{digest}"'}
    )
    assert (answer.status_code, answer.content) == (304, b"")


def test_the_rest_of_a_content_is_sent_to_whom_has_its_beginning(client):
    upload(client)
    whole = client.get("/v1/datasets/bottles/content", params={"part": "training"})
    for if_range, status, content in (
        (whole.headers["etag"], 206, whole.content[100:]),
        ('"of another content"', 200, whole.content),
    ):
        headers = {"Range": "bytes=100-", "If-Range": if_range}
        answer = client.get("/v1/datasets/bottles/content", params={"part": "training"}, headers=headers)
        assert (answer.status_code, answer.content) == (status, content)


def test_the_same_upload_again_is_the_same_dataset(client):
    first, second = upload(client), upload(client)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()


def test_a_taken_name_is_refused_and_other_names_share_the_content(client):
    first = upload(client).json()
    taken = upload(client, TEXT + b"and none is left\n")
    assert taken.status_code == 409
    assert first["id"] in taken.json()["detail"]
    assert upload(client, validation="0.3").status_code == 409, "cut otherwise is other data"
    again = upload(client, name="bottles-2").json()
    assert again["sha256"] == first["sha256"]
    assert client.delete(f"/v1/datasets/{first['id']}").status_code == 204
    tokens(client, "bottles-2", "training")


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        (b"", {}, "the file is empty"),
        (b"too short", {}, "too small"),
        (TEXT, {"validation": "0"}, "above 0"),
        (TEXT, {"validation": "nan"}, "above 0"),
        (TEXT, {"validation": "most"}, "not a number"),
        (TEXT, {"validation": "0.4", "test": "0.4"}, "at least half"),
        (TEXT, {"test": "-1"}, "from 0"),
        (TEXT, {"tokenizer": "words"}, "choose byte, char, bpe:N"),
        (TEXT, {"task": "probe"}, "choose causal_lm or classification or seq2seq"),
        (TEXT, {"target_tokenizer": "char"}, "does not go with causal_lm"),
        (TEXT, {"name": "../../etc/passwd"}, "cannot name a dataset"),
        (TEXT, {"name": "Upper"}, "cannot name a dataset"),
        (TEXT, {"path": "/etc/passwd"}, "means nothing here"),
        (b"NUL \0" * 400, {"tokenizer": "char"}, "NUL"),
    ],
)
def test_what_cannot_be_registered_is_refused_with_the_reason(client, content, fields, said):
    answer = upload(client, content, **{"name": "refused", **fields})
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]
    assert client.get("/v1/datasets/refused").status_code == 404


@pytest.mark.parametrize(("prefix", "broken"), [(b"x" * 1000, b"\xff"), ("é".encode() * 3_000_000, b"\xc3(")])
def test_what_is_not_utf8_is_refused_with_the_byte(client, prefix, broken):
    answer = upload(client, prefix + broken + b"y" * 1000, tokenizer="char")
    assert answer.status_code == 422
    assert answer.json()["byte_offset"] == len(prefix)
    cut_off = upload(client, prefix + "é".encode()[:1], tokenizer="char", name="cut-off")
    assert cut_off.json()["byte_offset"] == len(prefix)


def test_uploads_are_limited_while_they_arrive(client, services):
    services.settings.max_upload_bytes = 5000
    assert upload(client, b"x" * 4999).status_code == 201
    refused = upload(client, b"x" * 5001, name="larger")
    assert refused.status_code == 413
    assert "5,000 bytes" in refused.json()["detail"]

    def endless():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(1000):
            yield b"x" * 1000

    answer = client.post("/v1/datasets", content=endless(), headers={"Content-Type": MULTIPART})
    assert answer.status_code == 413
    assert not list(datasets.uploads_folder(services.settings).iterdir()), "nothing is left behind"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", "multipart/form-data", 415),
        (b"nonsense", MULTIPART, 422),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nno end', "multipart/form-data; boundary=b", 422),
        (
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            422,
        ),
    ],
)
def test_bodies_that_are_no_upload_are_refused(client, body, content_type, status):
    answer = client.post("/v1/datasets", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert status != 422 or answer.json()["errors"][0]["remedy"]


def test_lists_are_paged(client):
    for number in range(3):
        upload(client, name=f"bottles-{number}")
    first = client.get("/v1/datasets", params={"page_size": 4}).json()
    rest = client.get("/v1/datasets", params={"page_size": 4, "page_token": first["next_page_token"]}).json()
    names = [item["name"] for item in first["items"] + rest["items"]]
    assert names == ["python-topics", "digits", "bottles-0", "bottles-1", "bottles-2"]
    assert rest["next_page_token"] is None
    assert "profile" not in first["items"][0]


def test_python_topics_is_there_from_the_start_and_stays(client, services):
    dataset = client.get("/v1/datasets/python-topics").json()
    assert dataset["builtin"]
    assert set(dataset["parts"]) == {"training", "validation"}
    assert dataset["profile"]["baselines_nats"]["bigram"] == pytest.approx(2.32, abs=0.03)
    training, _ = tokens(client, "python-topics", "training")
    refused = client.delete("/v1/datasets/python-topics")
    assert refused.status_code == 409
    assert "built in" in refused.json()["detail"]

    path = services.settings.data_dir / "datasets" / dataset["sha256"] / "training.npz"
    path.unlink()
    builtins.register_builtins(services.database, services.settings)
    again, digest = tokens(client, "python-topics", "training")
    assert np.array_equal(training, again)
    assert digest == dataset["parts"]["training"]["sha256"]
    assert client.get("/v1/datasets").json()["items"][0] == {
        name: value for name, value in dataset.items() if name not in ("profile", "implications")
    }


def test_what_a_space_rests_on_of_a_built_in_dataset_is_known_without_a_service(client):
    assert set(BUILT_IN) == set(builtins.BUILTINS)
    for name, known in BUILT_IN.items():
        dataset = client.get(f"/v1/datasets/{name}").json()
        assert (known["task"], known["tokenizer"]) == (dataset["task"], dataset["tokenizer"])
        descriptive = {"tokenizer": dataset["tokenizer"], "labels": dataset["facts"].get("labels")}
        assert {name: fact for name, fact in dataset["facts"].items() if name not in descriptive} == known["facts"]


def test_a_dataset_that_a_sweep_uses_stays(client, services):
    dataset = upload(client).json()

    def use(session):
        sweep = Sweep(
            id="S" * 26, project="default", name="s", task="causal_lm", dataset_id=dataset["id"], document={},
            objectives=[], budget={}, sampler="tpe", sampler_reason="", space={}, created_at=now(session),
        )  # fmt: skip
        session.add(sweep)

    services.database.write(use)
    refused = client.delete(f"/v1/datasets/{dataset['id']}")
    assert refused.status_code == 409
    assert "S" * 26 in refused.json()["detail"]
    tokens(client, "bottles", "training")


def test_deleting_removes_row_and_files(client, services):
    dataset = upload(client).json()
    folder = services.settings.data_dir / "datasets" / dataset["sha256"]
    assert folder.is_dir()
    assert client.delete("/v1/datasets/bottles").status_code == 204
    assert not folder.exists()
    assert client.get("/v1/datasets/bottles").status_code == 404
    assert client.delete("/v1/datasets/bottles").status_code == 404
    left = services.database.read(lambda session: session.scalars(select(Dataset.name)).all())
    assert sorted(left) == ["digits", "python-topics"]


def test_content_that_is_registered_again_while_its_dataset_is_deleted_keeps_its_files(client, services, monkeypatch):
    upload(client)
    write = services.database.write

    def registered_after_the_deletion(change):
        monkeypatch.setattr(services.database, "write", write)
        orphan = write(change)
        assert upload(client, name="again").status_code == 201
        return orphan

    monkeypatch.setattr(services.database, "write", registered_after_the_deletion)
    datasets.delete(services.database, services.settings, "bottles")
    tokens(client, "again", "training")
    folders = [path.name for path in (services.settings.data_dir / "datasets").iterdir()]
    assert client.get("/v1/datasets/again").json()["sha256"] in folders
    assert not [name for name in folders if name.startswith("incoming-")]


def test_profiles_are_plain_json(client):
    profile = upload(client).json()["profile"]
    assert json.loads(json.dumps(profile, allow_nan=False)) == profile
    assert profile["lines"]["validation_in_training_share"] == 0.0


@pytest.mark.parametrize("characters", [71, 257, 3_000])
def test_a_boundary_that_is_too_long_is_of_no_type_that_is_read(client: TestClient, characters: int) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={'b' * characters}"}
    assert client.post("/v1/datasets", content=b"--", headers=headers).status_code == 415


PAIRS = "".join(f"w{number}\tW {' '.join(str(number))}\n" for number in range(300)).encode()
ROWS = b"label,a,b\n" + b"".join(b"%d,%d,%d\n" % (row % 2, row % 7, row) for row in range(200))


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (TEXT, {"tokenizer": "char"}),
        (TEXT, {"tokenizer": "byte"}),
        (PAIRS, {"task": "seq2seq", "tokenizer": "char", "target_tokenizer": "whitespace"}),
        (PAIRS, {"task": "seq2seq", "tokenizer": "whitespace", "target_tokenizer": "char"}),
        (ROWS, {"task": "classification"}),
    ],
)
def test_a_byte_order_mark_is_left_out_of_every_text(client, content, fields):
    plain = upload(client, content, "plain", **fields).json()
    marked = upload(client, b"\xef\xbb\xbf" + content, "marked", **fields).json()
    assert marked["sha256"] == plain["sha256"]
    assert "byte order mark" in marked["profile"]["notes"][0]
    assert "notes" not in plain["profile"]
    assert "byte order mark" in client.get("/datasets/marked").text
