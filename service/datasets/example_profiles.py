"""What a dataset of examples is like, before anything is trained on it: sizes, copies, and scores to beat.

The baselines know nothing of an example: they are the shares of classes (or of target tokens) in the training split,
scored on the validation split in the units of `validation_loss` and `accuracy`. Shares are smoothed by one count a
class (Laplace), so that what training never saw is not infinitely surprising.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.database.dataset_columns import ClassShare, LabelledProfile, Lengths, PairFacts, PairProfile
from service.datasets.content import Arrays

SHOWN_CLASSES = 50
SHOWN_SYMBOLS = 20


def labelled_profile(splits: Mapping[str, Arrays], names: Sequence[str], vocabulary_size: int) -> LabelledProfile:
    """The profile of labelled rows. Losses in nats per example; the test split is counted, and not looked at."""
    training, validation = splits["training"], splits["validation"]
    counts = np.bincount(training["labels"], minlength=len(names))
    seen = np.zeros(vocabulary_size, bool)
    seen[training["tokens"].ravel()] = True
    fitted = [row.tobytes() for row in training["tokens"]]
    distinct = set(fitted)
    return {
        "examples": {split: len(arrays["labels"]) for split, arrays in splits.items()},
        "vocabulary_size": vocabulary_size,
        "used_in_training": int(seen.sum()),
        "classes": _class_shares(training["labels"], validation["labels"], names),
        "lengths": _lengths(training.get("lengths"), training["tokens"].shape[1]),
        "duplicates": {
            "training_share": _share(len(fitted) - len(distinct), len(fitted)),
            "validation_in_training_share": _share(
                sum(row.tobytes() in distinct for row in validation["tokens"]), len(validation["tokens"])
            ),
            "contradicting": _contradicting(fitted, training["labels"]),
        },
        "baselines_nats": _baselines_nats(counts, validation["labels"]),
        "baselines_accuracy": _baselines_accuracy(counts, validation["labels"]),
    }


def pairs_profile(splits: Mapping[str, Arrays], facts: PairFacts, end: int) -> PairProfile:
    """The profile of pairs. Losses in nats per target token, its end included; the test split is only counted."""
    training, validation = splits["training"], splits["validation"]
    fitted, scored = (
        _with_ends(split["target"], len(split["target_lengths"]), end) for split in (training, validation)
    )
    counts = np.bincount(fitted, minlength=facts["vocabulary_size"])
    # Neither padding nor the start is ever to be said: no baseline spends probability on them.
    sayable = counts[end:]
    sources = Counter(_pieces(training["source"], training["source_lengths"]))
    unseen = np.setdiff1d(scored, np.flatnonzero(counts))
    symbols = facts["target_symbols"]
    order = np.argsort(-sayable, kind="stable")[:SHOWN_SYMBOLS]
    return {
        "examples": {split: len(arrays["target_lengths"]) for split, arrays in splits.items()},
        "target_tokens": {"training": len(fitted), "validation": len(scored)},
        "source_vocabulary_size": facts["source_vocabulary_size"],
        "vocabulary_size": facts["vocabulary_size"],
        "lengths": {
            "source": _lengths(training["source_lengths"], facts["source_length"]),
            "target": _lengths(training["target_lengths"], facts["target_length"] - 1),
        },
        "sources_with_several_targets_share": _share(sum(count > 1 for count in sources.values()), len(sources)),
        "unseen_in_training": {
            "kinds": [symbols[token - end - 1] for token in unseen[:SHOWN_SYMBOLS].tolist()],
            "validation_tokens": int(np.isin(scored, unseen).sum()),
        },
        "frequent_tokens": [
            {"token": symbols[each - 1] if each else "(end)", "share": _share(int(sayable[each]), len(fitted))}
            for each in order.tolist()
            if sayable[each]
        ],
        "baselines_nats": _baselines_nats(sayable, scored - end, "unigram"),
        "baselines_accuracy": _baselines_accuracy(sayable, scored - end),
    }


def _baselines_nats(counts: NDArray[Any], scored: NDArray[Any], name: str = "prior") -> dict[str, float]:
    """Cross-entropy in nats of guessing evenly, and by the shares of `counts`."""
    smoothed = (counts + 1) / (counts.sum() + len(counts))
    return {"uniform": math.log(len(counts)), name: 0.0 - float(np.log(smoothed[scored]).mean())}


def _baselines_accuracy(counts: NDArray[Any], scored: NDArray[Any]) -> dict[str, float]:
    """How often the most frequent answer of training is right."""
    return {"majority": float((scored == counts.argmax()).mean())}


def _class_shares(training: NDArray[Any], validation: NDArray[Any], names: Sequence[str]) -> list[ClassShare]:
    fitted, scored = (np.bincount(labels, minlength=len(names)) for labels in (training, validation))
    order = np.argsort(-fitted, kind="stable")[:SHOWN_CLASSES]
    return [
        {"class": names[int(each)], "training": int(fitted[each]), "validation": int(scored[each])}
        for each in order.tolist()
    ]


def _lengths(lengths: NDArray[Any] | None, longest: int) -> Lengths:
    """Of the training split; `longest` is of all splits."""
    if lengths is None:
        return {"minimum": longest, "mean": float(longest), "longest": longest}
    p50, p90, p99 = np.percentile(lengths, (50, 90, 99)).tolist()
    return {
        "minimum": int(lengths.min()),
        "mean": round(float(lengths.mean()), 4),
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "longest": longest,
    }


def _contradicting(rows: Sequence[bytes], labels: NDArray[Any]) -> int:
    """Different rows that come with more than one label: no model can get all of these right."""
    pairs = {(row, label) for row, label in zip(rows, labels.tolist(), strict=True)}
    return sum(count > 1 for count in Counter(row for row, _ in pairs).values())


def _with_ends(tokens: NDArray[Any], examples: int, end: int) -> NDArray[np.int64]:
    """All target tokens, with one end an example; their order does not matter here."""
    return np.concatenate([tokens.astype(np.int64), np.full(examples, end)])


def _pieces(tokens: NDArray[Any], lengths: NDArray[Any]) -> list[bytes]:
    return [piece.tobytes() for piece in np.split(tokens, np.cumsum(lengths)[:-1])]


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
