"""Labelled rows by upload: CSV and NPZ, what is wrong with them, and what the profile says."""

from __future__ import annotations

import io
import math
import zipfile
import zlib

import numpy as np
import pytest

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

ROWS = 200
GENERATOR = np.random.default_rng(0)
TOKENS = GENERATOR.integers(0, 9, (ROWS, 5))
LABELS = np.array(["odd" if row.sum() % 2 else "even" for row in TOKENS])


def csv_of(rows, labels, header="a,b,label,c,d,e"):
    lines = [
        ",".join([*map(str, row[:2]), str(label), *map(str, row[2:])]) for row, label in zip(rows, labels, strict=True)
    ]
    return "\n".join([header, *lines, ""]).encode()


CSV = csv_of(TOKENS, LABELS)


def npz_of(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def upload(client, content, name="rows", **fields):
    fields = {"name": name, "task": "classification", "validation": "0.25", **fields}
    return client.post("/v1/datasets", data=fields, files={"file": ("any name", content)})


def split(client, name, dataset="rows"):
    answer = client.get(f"/v1/datasets/{dataset}/content", params={"part": name})
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
        return dict(arrays)


def test_csv_comes_back_as_rows_and_classes(client):
    answer = upload(client, CSV)
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert dataset["tokenizer"] is None
    assert dataset["facts"] == {"vocabulary_size": 9, "classes": 2, "sequence_length": 5, "labels": ["even", "odd"]}
    training, validation = split(client, "training"), split(client, "validation")
    assert set(training) == {"tokens", "labels"}
    assert dataset["parts"]["validation"]["examples"] == len(validation["labels"]) == pytest.approx(50, abs=4)
    rows = np.concatenate([training["tokens"], validation["tokens"]])
    labels = np.concatenate([training["labels"], validation["labels"]])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, TOKENS))
    assert (rows.sum(1) % 2 == labels).all(), "every row kept its label"
    assert not {row.tobytes() for row in training["tokens"]} & {row.tobytes() for row in validation["tokens"]}


def test_numbers_as_labels_are_ordered_as_numbers(client):
    dataset = upload(client, csv_of(TOKENS, [10 if label == "odd" else 9 for label in LABELS])).json()
    assert dataset["facts"]["labels"] == ["9", "10"]
    training = split(client, "training")
    assert (training["tokens"].sum(1) % 2 == training["labels"]).all()


def test_empty_cells_at_the_end_are_padding_with_a_token_of_its_own(client):
    lines = [f"{a},{b},{'' if a > 4 else c},{label}" for (a, b, c, *_), label in zip(TOKENS, LABELS, strict=True)]
    dataset = upload(client, "\n".join(["a,b,c,label", *lines]).encode()).json()
    assert (dataset["facts"]["vocabulary_size"], dataset["facts"]["pad_id"]) == (10, 9)
    training = split(client, "training")
    assert set(training["lengths"]) == {2, 3}
    assert ((training["tokens"][:, 2] == 9) == (training["lengths"] == 2)).all()
    assert dataset["profile"]["lengths"]["minimum"] == 2


def test_npz_holds_lengths_and_masks(client):
    lengths = GENERATOR.integers(1, 6, ROWS)
    mask = np.tril(np.ones((ROWS, 5, 5), bool))
    answer = upload(client, npz_of(tokens=TOKENS, labels=LABELS, lengths=lengths, attention_mask=mask))
    assert answer.status_code == 201, answer.text
    assert answer.json()["facts"]["attention_mask"] is True
    training = split(client, "training")
    assert training["attention_mask"].shape == (len(training["labels"]), 5, 5)
    assert ((training["tokens"] == 9).sum(1) == 5 - training["lengths"]).all()


def test_a_profile_has_the_scores_to_beat(client):
    labels = np.where(np.arange(ROWS) % 4 == 0, "rare", "usual")
    rows = np.concatenate([TOKENS[:, :4], np.arange(ROWS)[:, None]], axis=1)
    profile = upload(client, csv_of(rows, labels)).json()["profile"]
    validation = split(client, "validation")["labels"]
    share = (validation == 1).mean()
    assert profile["baselines_accuracy"]["majority"] == pytest.approx(share)
    expected = -(share * math.log(0.75) + (1 - share) * math.log(0.25))
    assert profile["baselines_nats"]["prior"] == pytest.approx(expected, abs=0.01)
    assert profile["baselines_nats"]["uniform"] == pytest.approx(math.log(2))
    assert profile["duplicates"] == {
        "training_share": 0.0,
        "validation_in_training_share": 0.0,
        "contradicting": 0,
    }
    assert {each["class"] for each in profile["classes"]} == {"rare", "usual"}


def test_copies_and_contradictions_are_told(client):
    rows = np.repeat(np.arange(50), 4)[:, None] + np.zeros(5, int)
    labels = np.where(np.arange(200) < 100, np.arange(200) % 2, np.arange(200) // 4 % 2)
    profile = upload(client, csv_of(rows, labels)).json()["profile"]
    assert profile["duplicates"]["training_share"] > 0.5
    assert profile["duplicates"]["contradicting"] > 5


GOOD = {"tokens": TOKENS, "labels": LABELS}


def masked(**changed):
    mask = np.ones((ROWS, 5, 5), int)
    mask[7, 2] = changed["row"]
    return mask


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"a,b,label\n", "a header and no rows"),
        (b"1,2,3\n4,5,6\n", "line 1 has no column `label`"),
        (b"label\nx\n", "line 1 has the column `label` alone"),
        (b"a,label,Label\n1,2,3\n", "several columns `label`"),
        (b"a,label\n1,x\n1,x,2\n", "line 3 has 3 fields, the header has 2"),
        (b"a,b,label\n1,2,x\n1.5,2,x\n", "line 3: the column 'a' holds '1.5', which is no token"),
        (b"a,b,label\n-1,2,x\n", "line 2: the column 'a' holds '-1'"),
        (b"a,b,label\n1_0,2,x\n", "line 2: the column 'a' holds '1_0'"),
        (b"a,b,label\n99999999999,2,x\n", "whole numbers from 0 to 999,999"),
        (b"a,b,label\n,2,x\n", "the column 'a' is empty, with tokens after it"),
        (b"a,b,label\n,,x\n", "line 2 has no tokens"),
        (b"a,label\n1,\n", "line 2 has no label"),
        (b'a,label\n"1,x\n', "is not CSV"),
        (b"a,label\n1,\xff\n", "neither UTF-8 text nor NPZ"),
        (csv_of(TOKENS, ["same"] * ROWS), "at least 2 classes"),
        (csv_of(TOKENS[:12], LABELS[:12]), "the file is too small"),
        (csv_of(TOKENS, ["x" * 201, "y"] * 100), "cannot name a class"),
        (b"PK\x03\x04 and no more", "no NPZ file that can be read"),
        (npz_of(tokens=TOKENS), "the array 'labels' is missing"),
        (npz_of(**GOOD, weights=LABELS), "the array 'weights' means nothing here"),
        (npz_of(tokens=TOKENS / 2, labels=LABELS), "the array tokens is of type float64"),
        (npz_of(tokens=TOKENS[0], labels=LABELS), "give whole numbers [N, T]"),
        (npz_of(tokens=TOKENS, labels=LABELS[:7]), "give one a row of tokens, [200]"),
        (npz_of(tokens=TOKENS - 1, labels=LABELS), "has a token below 0"),
        (npz_of(tokens=TOKENS + 2**20, labels=LABELS), "row 0 (counted from 0) has a token above 999,999"),
        (npz_of(**GOOD, lengths=np.zeros(ROWS, int)), "a length that is not from 1 to 5"),
        (npz_of(**GOOD, attention_mask=np.ones((ROWS, 5), int)), "[200, 5, 5]"),
        (npz_of(**GOOD, attention_mask=masked(row=2)), "row 7 (counted from 0) has an attention_mask that is not 0"),
        (npz_of(**GOOD, attention_mask=masked(row=0)), "row 7 (counted from 0) has a token that may attend to none"),
    ],
)
def test_what_cannot_be_read_is_refused_with_row_and_remedy(client, content, said):
    answer = upload(client, content, "refused")
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]
    assert client.get("/v1/datasets/refused").status_code == 404


def test_fields_of_other_tasks_are_refused(client):
    for field in ("tokenizer", "target_tokenizer"):
        answer = upload(client, CSV, "refused", **{field: "char"})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == f"/{field}"


# --- NPZ files that mean harm ---------------------------------------------------------------------------------------


class Harm:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_a_pickle_is_not_loaded(client, capsys):
    content = npz_of(tokens=TOKENS, labels=np.array([Harm()] * ROWS, object))
    answer = upload(client, content, "refused")
    assert answer.status_code == 422
    assert "is of type object" in answer.json()["detail"]
    assert "unpickled" not in capsys.readouterr().out


def header_of(shape, dtype="<i8"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def zip_of(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(client, services):
    services.settings.max_upload_bytes = 1_000_000
    bomb = zip_of(tokens=header_of((2000, 1000)) + bytes(16_000_000), labels=header_of((2000,)) + bytes(16_000))
    assert len(bomb) < 100_000
    answer = upload(client, bomb, "refused")
    assert answer.status_code == 413
    assert "unpacked" in answer.json()["detail"]


@pytest.mark.parametrize(
    "tokens",
    [
        header_of((2**40, 2**40)),
        header_of((200, 5)) + bytes(10),
        header_of((200, -5)) + bytes(8000),
        header_of((200, 5), "|O") + bytes(8000),
        b"\x93NUMPY\x09\x00" + bytes(100),
        b"no array",
        b"",
    ],
)
def test_headers_that_lie_are_refused(client, tokens):
    answer = upload(client, zip_of(tokens=tokens, labels=header_of((200,)) + bytes(1600)), "refused")
    assert answer.status_code in (413, 422), answer.text


def test_a_damaged_archive_is_refused(client):
    content = bytearray(npz_of(**GOOD))
    content[60:80] = bytes(20)
    assert upload(client, bytes(content), "refused").status_code == 422
    sizes = zip_of(tokens=header_of((200, 5)) + zlib.compress(bytes(8000)))
    assert upload(client, sizes, "refused").status_code == 422


def test_digits_are_there_from_the_start(client):
    dataset = client.get("/v1/datasets/digits").json()
    assert dataset["builtin"]
    assert (dataset["task"], dataset["facts"]["classes"], dataset["facts"]["vocabulary_size"]) == (
        "classification", 10, 17,
    )  # fmt: skip
    assert dataset["facts"]["sequence_length"] == 64
    assert sum(piece["examples"] for piece in dataset["parts"].values()) == 1797
    assert dataset["profile"]["baselines_accuracy"]["majority"] < 0.12


def test_labels_are_the_same_with_and_without_blanks_around_them(client):
    padded = [f" {label} " for label in LABELS]
    from_csv = upload(client, csv_of(TOKENS, padded), "csv").json()
    from_npz = upload(client, npz_of(tokens=np.array(TOKENS), labels=np.array(padded)), "npz").json()
    assert from_csv["facts"]["labels"] == from_npz["facts"]["labels"]
    assert from_csv["sha256"] == from_npz["sha256"]


def test_a_class_that_only_training_has_is_told(client):
    answer = upload(client, csv_of([*TOKENS, TOKENS[0]], [*LABELS, "rare"]))
    assert answer.status_code == 201, answer.text
    (note,) = answer.json()["profile"]["notes"]
    assert "the validation split has no example of 'rare'" in note
    assert "the validation split has no example of" in client.get("/datasets/rows").text.lower()
