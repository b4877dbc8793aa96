"""What a dataset is like, before anything is trained on it: sizes, leaks between splits, and losses to beat.

The baselines are n-gram models fitted on the training split alone and scored on the validation split in nats per token,
the unit of `validation_loss`. They interpolate every order with the shorter ones down to uniform (Witten and Bell 1991,
"The zero-frequency problem", estimator C): no unseen context or token is infinitely surprising, and nothing is tuned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.database.dataset_columns import LineFacts, TextProfile, TokenShare
from service.datasets.texts.alphabets import Alphabet
from service.datasets.texts.tokens import Tokens, counts

BASELINES = ("unigram", "bigram", "trigram", "4-gram", "5-gram")

SCORE_TOKENS = 1_000_000
PIECE_TOKENS = 1 << 17
"""Scored at once."""

SYMBOLS_NAMED = 50
FREQUENT_TOKENS = 20
LINE_CHARACTERS = 20
"""Shorter lines repeat by chance (a bracket, a name) and say nothing about leaks."""


def text_profile(splits: Mapping[str, Tokens], alphabet: Alphabet) -> TextProfile:
    """The profile of a text with a `training` and a `validation` split.

    Answers plain JSON values; losses are in nats per token. The test split is counted, and otherwise not looked at.
    """
    training, validation, size = splits["training"], splits["validation"], alphabet.vocabulary_size
    fitted, scored = counts(training, size), counts(validation, size)
    unseen = np.flatnonzero((scored > 0) & (fitted == 0))
    fit, score = np.array(training[: alphabet.most_fitted]), np.array(validation[:SCORE_TOKENS])
    return {
        "tokens": {name: len(tokens) for name, tokens in splits.items()},
        "vocabulary_size": size,
        "used_in_training": int((fitted > 0).sum()),
        "unseen_in_training": {
            "kinds": [alphabet.symbol(int(token)) for token in unseen[:SYMBOLS_NAMED]],
            "count": len(unseen),
            "validation_tokens": int(scored[unseen].sum()),
        },
        "frequent_tokens": _frequent_tokens(fitted, alphabet),
        "lines": _line_facts(alphabet.text("training", fit), alphabet.text("validation", score)),
        "baselines_nats": baselines_nats(fit, score, size),
        "baselines_read": {"training_tokens": len(fit), "validation_tokens": len(score)},
    }


def baselines_nats(training: Tokens, validation: Tokens, vocabulary_size: int) -> dict[str, float]:
    """Cross-entropy on `validation`, in nats per token, of the uniform model and of n-gram models of `training`.

    The first tokens of the validation split, whose context is cut off, are predicted from what context there is.
    """
    losses = {"uniform": math.log(vocabulary_size)}
    probabilities = np.full(len(validation), 1.0 / vocabulary_size)
    fitted, scored = _Contexts.empty(training), _Contexts.empty(validation)
    for name in BASELINES:
        grams = _grams(fitted, vocabulary_size)
        found = np.empty(len(scored.tokens), np.int32)
        of_scored = probabilities[scored.start :]
        for start in range(0, len(found), PIECE_TOKENS):
            piece = slice(start, start + PIECE_TOKENS)
            ids = scored.ids[piece]
            found[piece] = _lookup(grams, ids, scored.tokens[piece], vocabulary_size)
            of_scored[piece] = _interpolate(grams, ids, found[piece], of_scored[piece])
        losses[name] = 0.0 - float(np.log(probabilities).mean())
        fitted = _Contexts(training[fitted.start + 1 :], grams.inverse[:-1], fitted.start + 1)
        scored = _Contexts(validation[scored.start + 1 :], found[:-1], scored.start + 1)
        # The next longer ones need the room.
        del grams
        if not len(fitted.tokens) or not len(scored.tokens):
            break
    return losses


@dataclass(frozen=True, slots=True)
class _Contexts:
    """The contexts of one length: `ids[i]` names the one before `tokens[i]`, -1 if training has never seen it."""

    tokens: Tokens
    ids: NDArray[Any]
    start: int
    """The position in the split of `tokens[0]`, which is the contexts' length."""

    @staticmethod
    def empty(tokens: Tokens) -> _Contexts:
        return _Contexts(tokens, np.zeros(len(tokens), dtype=np.int32), 0)


@dataclass(frozen=True, slots=True)
class _Grams:
    """The distinct (context, token) pairs of the training split; a pair's position names the next longer context."""

    keys: NDArray[np.int64]
    counts: NDArray[np.int32]
    inverse: NDArray[np.int32]
    context_counts: NDArray[np.int32]
    context_kinds: NDArray[np.int32]
    """How many different tokens follow each context."""


def _grams(contexts: _Contexts, vocabulary_size: int) -> _Grams:
    """As `numpy.unique` with counts and inverse, in a quarter of its memory: registering a text takes most for this.

    So many tokens are not looked at that their positions would need more than 32 bits.
    """
    pairs = contexts.ids * np.int64(vocabulary_size)
    pairs += contexts.tokens
    order = np.argsort(pairs).astype(np.int32)
    pairs = pairs[order]
    first = _begins(pairs)
    keys = pairs[first]
    del pairs
    numbers = np.cumsum(first, dtype=np.int32)
    numbers -= 1
    inverse = np.empty(len(order), np.int32)
    inverse[order] = numbers
    del order, numbers
    counts = _lengths(first)
    # Pairs of one context stand together.
    owners = (keys // vocabulary_size).astype(np.int32)
    first = _begins(owners)
    totals, kinds = (np.zeros(int(owners[-1]) + 1, np.int32) for _ in range(2))
    totals[owners[first]] = np.add.reduceat(counts, np.flatnonzero(first))
    kinds[owners[first]] = _lengths(first)
    return _Grams(keys, counts, inverse, totals, kinds)


def _begins(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a sorted array has another value than before."""
    found = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=found[1:])
    return found


def _lengths(first: NDArray[np.bool_]) -> NDArray[np.int32]:
    """How long each run is, by where runs begin."""
    return np.diff(np.flatnonzero(first).astype(np.int32), append=np.int32(len(first)))


def _lookup(grams: _Grams, ids: NDArray[Any], tokens: Tokens, vocabulary_size: int) -> NDArray[np.int64]:
    """The position of each (context, token) of the validation split among those of training, or -1."""
    wanted = np.where(ids < 0, -1, ids * np.int64(vocabulary_size) + tokens)
    positions = np.minimum(np.searchsorted(grams.keys, wanted), len(grams.keys) - 1)
    return np.where(grams.keys[positions] == wanted, positions, -1)


def _interpolate(
    grams: _Grams, ids: NDArray[Any], found: NDArray[np.int32], shorter: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mix one order's counts with the probabilities of the order below, weighted by the kinds that follow a context."""
    # The last context of training may never have been followed by anything: it has no counts.
    known = (ids >= 0) & (ids < len(grams.context_counts))
    ids = np.where(known, ids, 0)
    totals = np.where(known, grams.context_counts[ids], 0.0)
    kinds = np.where(totals > 0, grams.context_kinds[ids], 1)
    counts = np.where(found >= 0, grams.counts[found], 0)
    return np.where(totals > 0, (counts + kinds * shorter) / (totals + kinds), shorter)


def _frequent_tokens(fitted: NDArray[np.int64], alphabet: Alphabet) -> list[TokenShare]:
    order = np.argsort(-fitted, kind="stable")[:FREQUENT_TOKENS]
    total = int(fitted.sum())
    return [
        {"token": alphabet.symbol(int(token)), "share": round(float(fitted[token]) / total, 6)}
        for token in order
        if fitted[token]
    ]


def _line_facts(training: str, validation: str) -> LineFacts:
    """How much of the text repeats: what is in both splits can be memorized and flatters a validation loss."""
    fitted, scored = _long_lines(training), _long_lines(validation)
    distinct = set(fitted)
    shared = sum(line in distinct for line in scored)
    return {
        "minimum_characters": LINE_CHARACTERS,
        "training": len(fitted),
        "validation": len(scored),
        "duplicate_share": round(1 - len(distinct) / len(fitted), 6) if fitted else 0.0,
        "validation_in_training_share": round(shared / len(scored), 6) if scored else 0.0,
    }


def _long_lines(text: str) -> list[str]:
    return [line for each in text.split("\n") if len(line := each.strip()) >= LINE_CHARACTERS]
