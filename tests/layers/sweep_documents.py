"""Sweep documents to test with."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from layers.space.document import (
    DocumentError,
    FeasibilityReport,
    Problem,
    SweepDocument,
    parse_document,
    read_document,
)

GOOD: dict[str, Any] = {
    "name": "good",
    "task": "causal_lm",
    "dataset": "bytes",
    "model": {
        "num_layers": {"min": 1, "max": 4},
        "hidden_size": {"values": [32, 64, 96]},
        "attention": {"num_attention_heads": {"values": [2, 3]}},
    },
    "objectives": [{"metric": "latency_ms_p50"}, {"metric": "validation_loss", "goal": "minimize"}],
}

DATASETS: dict[str, dict[str, Any]] = {
    "bytes": {"task": "causal_lm", "tokenizer": "byte", "facts": {"vocabulary_size": 256}},
    "characters": {"task": "causal_lm", "tokenizer": "char", "facts": {"vocabulary_size": 65}},
    "digits": {"task": "classification", "tokenizer": None, "facts": {"vocabulary_size": 17, "classes": 10}},
    "words": {
        "task": "seq2seq",
        "tokenizer": "char",
        "facts": {
            "vocabulary_size": 29,
            "source_vocabulary_size": 29,
            "source_length": 20,
            "target_length": 20,
        },
    },
}

LEFT_OUT = object()
"""As a value of `changed`: take the field away."""


def changed(changes: Mapping[str, Any], document: Mapping[str, Any] = GOOD) -> dict[str, Any]:
    """`document` with the places that JSON pointers name set to other values."""
    made: dict[str, Any] = copy.deepcopy(dict(document))
    for pointer, value in changes.items():
        *parents, last = pointer.strip("/").split("/")
        place = made
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is LEFT_OUT:
            place.pop(last)
        else:
            place[last] = copy.deepcopy(value)
    return made


def parsed(changes: Mapping[str, Any] | None = None, **known: Any) -> SweepDocument:
    """GOOD with changes, parsed."""
    return parse_document(changed(changes or {}), find_dataset=DATASETS.get, **known)


def measured(changes: Mapping[str, Any]) -> tuple[SweepDocument, FeasibilityReport]:
    """GOOD with changes, parsed and measured."""
    return read_document(changed(changes), find_dataset=DATASETS.get)


def problems(changes: Mapping[str, Any], **known: Any) -> list[Problem]:
    """What is wrong with GOOD after changes. Every problem has a place in the document, and a remedy."""
    document = changed(changes)
    with pytest.raises(DocumentError) as refused:
        read_document(document, find_dataset=DATASETS.get, **known)
    found = refused.value.problems
    assert all(problem.detail and problem.remedy for problem in found), found
    return found
