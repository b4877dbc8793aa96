"""Pairs of source and target by upload: TSV, cut by the source, with the scores that a model must beat."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

WORDS = [f"w{number}" for number in range(300)]
LINES = [f"{word}\tW {' '.join(word[1:])}" for word in WORDS]


def upload(client, content, name="pairs", **fields):
    if isinstance(content, list):
        content = "\n".join([*content, ""]).encode()
    fields = {"name": name, "task": "seq2seq", "target_tokenizer": "whitespace", **fields}
    return client.post("/v1/datasets", data=fields, files={"file": ("any name", content)})


def pairs(client, facts, split):
    """The pairs of a split as text."""
    answer = client.get("/v1/datasets/pairs/content", params={"part": split})
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
        sides = []
        for side, specials, joint in (("source", 1, ""), ("target", 3, " ")):
            pieces = np.split(arrays[side], np.cumsum(arrays[f"{side}_lengths"])[:-1])
            symbols = facts[f"{side}_symbols"]
            sides.append([joint.join(symbols[token - specials] for token in piece) for piece in pieces])
    return list(zip(*sides, strict=True))


def test_pairs_come_back_cut_by_their_source(client):
    answer = upload(client, ["source\ttarget", *LINES, ""], test="0.1")
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    facts = dataset["facts"]
    assert (facts["tokenizer"], facts["target_tokenizer"]) == ("char", "whitespace")
    assert (facts["pad_id"], facts["start_id"], facts["end_id"]) == (0, 1, 2)
    assert (facts["source_vocabulary_size"], facts["vocabulary_size"]) == (12, 14), "w and digits; W and digits"
    assert (facts["source_length"], facts["target_length"]) == (4, 5), "the end is a target token, too"
    training, validation = pairs(client, facts, "training"), pairs(client, facts, "validation")
    assert {*training, *validation} < {tuple(line.split("\t")) for line in LINES}
    assert [dataset["parts"][split]["examples"] for split in ("training", "validation")] == [
        len(training),
        len(validation),
    ]
    assert dataset["parts"]["validation"]["tokens"] == sum(len(target.split()) + 1 for _, target in validation)
    assert sum(piece["examples"] for piece in dataset["parts"].values()) == 300


def test_variants_of_a_headword_do_not_leak_between_splits(client):
    lines = [f"{word}{variant}\tA {word[1]}" for word in WORDS for variant in ("", "(2)", "(3)")]
    dataset = upload(client, lines, validation="0.3").json()
    training, validation = (pairs(client, dataset["facts"], split) for split in ("training", "validation"))
    assert len(training) + len(validation) == 900
    assert not {s.partition("(")[0] for s, _ in training} & {s.partition("(")[0] for s, _ in validation}


def test_several_targets_of_a_source_stay_together(client):
    dataset = upload(client, [f"{word}\t{target}" for word in WORDS for target in ("A", "B")]).json()
    training, validation = (pairs(client, dataset["facts"], split) for split in ("training", "validation"))
    assert not {source for source, _ in training} & {source for source, _ in validation}
    assert dataset["profile"]["sources_with_several_targets_share"] == 1.0


def test_a_profile_has_the_scores_to_beat(client):
    dataset = upload(client, [f"{word}\tA A A B" for word in WORDS]).json()
    profile = dataset["profile"]
    assert profile["baselines_accuracy"]["majority"] == pytest.approx(3 / 5), "A of A A A B and the end"
    shares = np.array([3, 1, 1]) / 5
    assert profile["baselines_nats"]["unigram"] == pytest.approx(-(shares * np.log(shares)).sum(), abs=0.01)
    assert profile["baselines_nats"]["uniform"] == pytest.approx(math.log(3)), "neither padding nor start is said"
    assert profile["frequent_tokens"][0] == {"token": "A", "share": 0.6}
    of_target = {"minimum": 4, "mean": 4.0, "p50": 4.0, "p90": 4.0, "p99": 4.0, "longest": 4}
    assert profile["lengths"]["target"] == of_target


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        (b"", {}, "the file is empty"),
        ([*LINES, "no tab"], {}, "line 301 has 0 tabs: write a source, one tab and its target"),
        ([*LINES, "a\tb\tc"], {}, "line 301 has 2 tabs"),
        ([*LINES, "a\t "], {}, "line 301 has an empty target"),
        ([*LINES, "\tb"], {}, "line 301 has an empty source"),
        (b"a\tb\n\xff\tb\n", {}, "line 2 is not UTF-8: its byte 0 (counted from 0) is 0xff"),
        (b"a\tb\nc\t\0\n", {}, "line 2 holds a NUL character"),
        (LINES[:20], {}, "the file is too small"),
        ([*LINES, "a" * 5000 + "\tb"], {}, "has 5,000 tokens: at most 4,096"),
        (LINES, {"tokenizer": "byte"}, "choose char or whitespace"),
        (LINES, {"target_tokenizer": "words"}, "choose char or whitespace"),
        ([f"{n}\tt{n}" for n in range(70_000)], {}, "register them with target_tokenizer=char"),
    ],
)
def test_what_cannot_be_read_is_refused_with_line_and_remedy(client, content, fields, said):
    answer = upload(client, content, "refused", **fields)
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]
    assert client.get("/v1/datasets/refused").status_code == 404
