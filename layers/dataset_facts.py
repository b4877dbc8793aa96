"""What a dataset's facts fix of a sweep's shapes.

Empty facts (the dataset is not known) fix nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict, cast

from layers.parameter import ParameterError, Scalar


class DatasetFacts(TypedDict, total=False):
    """What a dataset's record says of its data, as far as a space and a trial rest on it."""

    vocabulary_size: int
    tokenizer: str
    """Of a text: byte, char, bpe:N or file."""
    tokenizer_sha256: str
    """Of the `tokenizer.json` of a text of parts of words."""
    training_tokens: int
    """Of a text, if its split is known."""
    validation_bytes: int
    """Of a text, if they were counted."""
    classes: int
    """Of a classification."""
    sequence_length: int
    """Of a classification's rows."""
    attention_mask: bool
    """Whether each row of a classification has a mask of its own."""
    source_vocabulary_size: int
    """Of a seq2seq, as its lengths."""
    source_length: int
    target_length: int
    pad_id: int
    start_id: int
    end_id: int


class DatasetDescription(TypedDict):
    """What a sweep's document rests on of its dataset."""

    task: str
    tokenizer: str | None
    facts: DatasetFacts


class ModelFacts(TypedDict, total=False):
    """What a model's defaults follow from: the dataset's vocabularies and classes, and the lengths of sequences (one or
    all that are trained or measured)."""

    vocabulary_size: int
    source_vocabulary_size: int
    classes: int
    sequence_length: int | Iterable[int]
    source_length: int | Iterable[int]


BUILT_IN: Mapping[str, DatasetDescription] = {
    "python-topics": {"task": "causal_lm", "tokenizer": "byte", "facts": {"vocabulary_size": 256}},
    "digits": {
        "task": "classification",
        "tokenizer": None,
        "facts": {"vocabulary_size": 17, "classes": 10, "sequence_length": 64},
    },
}
"""What a sweep's document rests on of the datasets that every installation has (service/datasets/builtins.py makes
them)."""


def facts_of(task: str, facts: Mapping[str, object], splits: Mapping[str, Mapping[str, object]]) -> DatasetFacts:
    """What a space rests on of a registered dataset, of the JSON of its record: its facts, and of a text how long its
    training split is and how many bytes its validation split has."""
    known = cast("DatasetFacts", dict(facts))
    if task != "causal_lm":
        return known
    tokens, size = splits.get("training", {}).get("tokens"), splits.get("validation", {}).get("bytes")
    if isinstance(tokens, int):
        known["training_tokens"] = tokens
    if isinstance(size, int):
        known["validation_bytes"] = size
    return known


def model_facts(facts: DatasetFacts, lengths: Mapping[str, int]) -> ModelFacts:
    """What a model for a dataset follows from, with the longest sequences that it is given."""
    found: ModelFacts = {}
    if "vocabulary_size" in facts:
        found["vocabulary_size"] = facts["vocabulary_size"]
    if "source_vocabulary_size" in facts:
        found["source_vocabulary_size"] = facts["source_vocabulary_size"]
    if "classes" in facts:
        found["classes"] = facts["classes"]
    if "sequence_length" in lengths:
        found["sequence_length"] = lengths["sequence_length"]
    if "source_length" in lengths:
        found["source_length"] = lengths["source_length"]
    return found


def longest_sequence(task: str, facts: DatasetFacts) -> int | None:
    """The longest sequence that a text's training split holds with the token after it; None if nothing limits it."""
    tokens = facts.get("training_tokens")
    return None if task != "causal_lm" or tokens is None else tokens - 1


TASKS_WITH_SOURCES = ("seq2seq", "probe")


def fixed_lengths(task: str, facts: DatasetFacts) -> dict[str, int]:
    """The lengths that hold if a document gives none: the rows' of a classification, the longest of a seq2seq."""
    fixed: dict[str, int] = {}
    if task == "classification" and "sequence_length" in facts:
        fixed["sequence_length"] = facts["sequence_length"]
    if task == "seq2seq" and "target_length" in facts:
        fixed["sequence_length"] = facts["target_length"]
    if task == "seq2seq" and "source_length" in facts:
        fixed["source_length"] = facts["source_length"]
    return fixed


def check_lengths(section: str, values: Mapping[str, Scalar], task: str, facts: DatasetFacts) -> None:
    """Raise ParameterError if a completed section's lengths do not fit the data, or the task has no such length."""
    if "source_length" in values and task not in TASKS_WITH_SOURCES:
        raise ParameterError(f"{section}.source_length", f"does not apply: a {task} has no source", "leave it out")
    longest, given = longest_sequence(task, facts), int(values["sequence_length"])
    if longest is not None and given > longest:
        raise ParameterError(f"{section}.sequence_length", *too_long(given, longest))
    for name, length in fixed_lengths(task, facts).items():
        given = int(values[name])
        if task == "classification" and given != length:
            message = f"{given} is not the length of the dataset's rows"
            raise ParameterError(f"{section}.{name}", message, f"leave it out: it is {length}")
        if given < length:
            message = f"{given} is too short for the dataset, whose longest has {length}"
            raise ParameterError(f"{section}.{name}", message, f"at least {length}, or leave it out")


def too_long(length: int, longest: int) -> tuple[str, str]:
    """What is wrong with a sequence that a text's training split does not hold, and what to try."""
    detail = f"{length:,} tokens and the one after them are more than the {longest + 1:,} of the training split"
    return detail, f"at most {longest:,}, or register more text"
