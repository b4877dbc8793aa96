from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.datasets.texts.alphabets import ByteAlphabet, CharacterAlphabet
from service.datasets.texts.profiles import baselines_nats, text_profile


def witten_bell(training, context, token, size):
    """The definition, one probability at a time: no context at all falls back to uniform."""
    if context is None:
        return 1 / size
    shorter = context[1:] if context else None
    lower = witten_bell(training, shorter, token, size)
    width = len(context)
    following = Counter(
        training[i + width] for i in range(len(training) - width) if tuple(training[i : i + width]) == tuple(context)
    )
    total, kinds = sum(following.values()), len(following)
    return (following[token] + kinds * lower) / (total + kinds) if total else lower


small_texts = st.lists(st.integers(0, 3), min_size=6, max_size=25)


@given(small_texts, small_texts)
@settings(max_examples=60, deadline=None)
def test_baselines_are_witten_bell_by_definition(training, validation):
    found = baselines_nats(np.array(training, np.uint8), np.array(validation, np.uint8), 4)
    assert found["uniform"] == pytest.approx(math.log(4))
    for width, name in enumerate(["unigram", "bigram", "trigram", "4-gram", "5-gram"]):
        probabilities = [
            witten_bell(training, tuple(validation[max(0, i - width) : i]), token, 4)
            for i, token in enumerate(validation)
        ]
        assert found[name] == pytest.approx(-np.log(probabilities).mean()), name


@given(small_texts, st.lists(st.integers(0, 3), max_size=4))
@settings(max_examples=30, deadline=None)
def test_every_context_has_a_whole_probability(training, context):
    assert sum(witten_bell(training, tuple(context), token, 4) for token in range(4)) == pytest.approx(1)


def test_what_training_never_saw_is_finitely_surprising():
    losses = baselines_nats(np.zeros(300, np.uint8), np.full(64, 7, np.uint8), 256)
    assert all(math.isfinite(loss) for loss in losses.values())
    assert losses["unigram"] > losses["uniform"]


def test_a_text_of_a_single_repeated_pair_is_learnt_by_a_bigram():
    text = np.tile(np.array([0, 1], np.uint8), 500)
    losses = baselines_nats(text[:900], text[900:], 2)
    assert losses["unigram"] == pytest.approx(math.log(2), rel=0.01)
    assert losses["bigram"] < 0.02


def test_repeated_lines_and_leaks_are_counted():
    lines = [f"this is line number {number} of the training split" for number in range(50)]
    training = "\n".join([*lines, *lines[:25], "}", "}"])
    validation = "\n".join([*lines[:5], *(f"a line that nobody has seen before {number}" for number in range(15)), "}"])
    facts = text_profile(
        {
            "training": np.frombuffer(training.encode(), np.uint8),
            "validation": np.frombuffer(validation.encode(), np.uint8),
        },
        ByteAlphabet(),
    )["lines"]
    assert (facts["training"], facts["validation"]) == (75, 20), "short lines are not counted"
    assert facts["duplicate_share"] == pytest.approx(1 / 3, abs=1e-6)
    assert facts["validation_in_training_share"] == pytest.approx(0.25)


def test_counted_characters_are_named():
    vocabulary = ["\n", "a", "b", "ü"]
    training, validation = np.array([1, 2, 0] * 100, np.uint8), np.array([1, 3, 3] * 30, np.uint8)
    profile = text_profile({"training": training, "validation": validation}, CharacterAlphabet(vocabulary))
    assert profile["unseen_in_training"] == {"kinds": ["ü"], "count": 1, "validation_tokens": 60}
    assert profile["used_in_training"] == 3
    assert {each["token"] for each in profile["frequent_tokens"]} == {"\n", "a", "b"}
    assert profile["tokens"] == {"training": 300, "validation": 90}
