"""What a dataset's facts fix of a sweep's shapes.

Facts by task: causal_lm {vocabulary_size, and training_tokens where the split is known}; classification
{vocabulary_size, classes, sequence_length, and, where the data has them, pad_id, attention_mask}; seq2seq
{source_vocabulary_size, vocabulary_size, source_length, target_length}.
Empty facts (the dataset is not known) fix nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layers.parameter import ParameterError

BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "python-topics": {"task": "causal_lm", "tokenizer": "byte", "facts": {"vocabulary_size": 256}},
    "digits": {
        "task": "classification",
        "tokenizer": None,
        "facts": {"vocabulary_size": 17, "classes": 10, "sequence_length": 64},
    },
}
"""What a sweep's document rests on of the datasets that every installation has (service/datasets/builtins.py makes
them)."""


def facts_of(task: str, facts: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """What a space rests on of a registered dataset: its facts, and of a text how long its training part is."""
    tokens = parts.get("training", {}).get("tokens") if task == "causal_lm" else None
    return dict(facts) if tokens is None else {**facts, "training_tokens": tokens}


def longest_sequence(task: str, facts: Mapping[str, Any]) -> int | None:
    """The longest sequence that a text's training part holds with the token after it; None where nothing limits it."""
    tokens: int | None = facts.get("training_tokens")
    return None if task != "causal_lm" or tokens is None else tokens - 1


TASKS_WITH_SOURCES = ("seq2seq", "probe")

_FIXED = {
    "classification": {"sequence_length": "sequence_length"},
    "seq2seq": {"sequence_length": "target_length", "source_length": "source_length"},
}


def fixed_lengths(task: str, facts: Mapping[str, Any]) -> dict[str, int]:
    """The lengths that hold where a document gives none: the rows' of a classification, the longest of a seq2seq."""
    return {name: facts[fact] for name, fact in _FIXED.get(task, {}).items() if fact in facts}


def check_lengths(section: str, values: Mapping[str, Any], task: str, facts: Mapping[str, Any]) -> None:
    """Raise ParameterError where a completed section's lengths do not fit the data, or the task has no such length."""
    if "source_length" in values and task not in TASKS_WITH_SOURCES:
        raise ParameterError(f"{section}.source_length", f"does not apply: a {task} has no source", "leave it out")
    longest = longest_sequence(task, facts)
    if longest is not None and values["sequence_length"] > longest:
        raise ParameterError(f"{section}.sequence_length", *too_long(values["sequence_length"], longest))
    for name, length in fixed_lengths(task, facts).items():
        if task == "classification" and values[name] != length:
            message = f"{values[name]} is not the length of the dataset's rows"
            raise ParameterError(f"{section}.{name}", message, f"leave it out: it is {length}")
        if values[name] < length:
            message = f"{values[name]} is too short for the dataset, whose longest has {length}"
            raise ParameterError(f"{section}.{name}", message, f"at least {length}, or leave it out")


def too_long(length: int, longest: int) -> tuple[str, str]:
    """What is wrong with a sequence that a text's training part does not hold, and what would be right."""
    detail = f"{length:,} tokens and the one after them are more than the {longest + 1:,} of the training part"
    return detail, f"at most {longest:,}, or register more text"
