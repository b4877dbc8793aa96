"""Uploaded files by the task that they are for: which fields go with a file, and who reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from service.database.dataset_columns import PairTokenizer
from service.datasets.content import Content
from service.datasets.labelled import read_labelled
from service.datasets.pairs import PAIR_TOKENIZERS, read_pairs
from service.datasets.splits import Fractions
from service.datasets.texts import tokenizers
from service.datasets.texts.reading import read_text
from service.datasets.texts.tokenizers import GivenTokenizer, TextTokenizer
from service.errors import Problem, UnprocessableError

Task = Literal["causal_lm", "classification", "seq2seq"]
TASKS: tuple[Task, ...] = get_args(Task)
"""What a file can be registered for."""

TOKENIZER_FILE = "tokenizer_file"

FIELDS = ("name", "task", "tokenizer", "target_tokenizer", "validation", "test")

_FOREIGN: Mapping[str, Mapping[str, str]] = {
    "causal_lm": {"target_tokenizer": "a text has no targets apart"},
    "classification": {
        "tokenizer": "the file holds tokens already",
        "target_tokenizer": "a class is no sequence of tokens",
        TOKENIZER_FILE: "the file holds tokens already",
    },
    "seq2seq": {TOKENIZER_FILE: "sources and targets are read as `tokenizer` and `target_tokenizer` say"},
}
"""Fields that another task has, with the reason why this one has not."""

_Choice = TypeVar("_Choice", bound=str)


class Form:
    """The fields of an upload, with errors that name the field."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        for name in fields:
            if name not in FIELDS:
                known = f"the fields are {', '.join(FIELDS)}; the files are file and {TOKENIZER_FILE}"
                raise _wrong(name, "means nothing here", known)
        self._fields = {name: value.strip() for name, value in fields.items() if value.strip()}

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def required(self, name: str) -> str:
        if name not in self._fields:
            raise UnprocessableError(f"the field `{name}` is missing")
        return self._fields[name]

    def text(self, name: str, default: str) -> str:
        return self._fields.get(name, default)

    def choice(self, name: str, choices: tuple[_Choice, ...], default: _Choice) -> _Choice:
        value = self._fields.get(name, default)
        for each in choices:
            if each == value:
                return each
        raise _wrong(name, f"is {value[:40]!r}", f"choose {' or '.join(choices)}")

    def number(self, name: str, default: float) -> float:
        text = self._fields.get(name, str(default))
        try:
            return float(text)
        except ValueError:
            raise _wrong(name, f"is {text[:40]!r}, which is not a number", f"such as {default:g}") from None


@dataclass(frozen=True, slots=True)
class Received:
    """The files of an upload."""

    file: Path
    tokenizer: Path | None
    """A `tokenizer.json`."""
    scratch: Path
    """An empty folder that lasts as long as the content that is read."""


def read(received: Received, form: Form, *, limit_bytes: int) -> Content:
    """Read an uploaded file as its form says.

    Raises UnprocessableError, or PayloadTooLargeError where it unpacks to more than the limit.
    """
    task = form.choice("task", TASKS, TASKS[0])
    for name, why in _FOREIGN[task].items():
        if name in form or (name == TOKENIZER_FILE and received.tokenizer is not None):
            raise _wrong(name, f"does not go with {task}", f"leave it out: {why}")
    fractions = Fractions(form.number("validation", 0.1), form.number("test", 0.0))
    if task == "classification":
        return read_labelled(received.file, fractions, limit_bytes=limit_bytes)
    if task == "seq2seq":
        of_sources: PairTokenizer = form.choice("tokenizer", PAIR_TOKENIZERS, PAIR_TOKENIZERS[0])
        of_targets: PairTokenizer = form.choice("target_tokenizer", PAIR_TOKENIZERS, of_sources)
        return read_pairs(received.file, of_sources, of_targets, fractions)
    return read_text(received.file, _text_tokenizer(received, form), fractions, received.scratch)


def _text_tokenizer(received: Received, form: Form) -> TextTokenizer:
    if received.tokenizer is not None:
        if "tokenizer" in form:
            raise _wrong("tokenizer", "is named beside a file", f"leave it out: `{TOKENIZER_FILE}` is the tokenizer")
        return GivenTokenizer(received.tokenizer)
    named = form.text("tokenizer", "byte")
    found = tokenizers.parse(named)
    if found is None:
        raise _wrong("tokenizer", f"is {named[:40]!r}", f"choose {tokenizers.CHOICES}")
    return found


def _wrong(name: str, what: str, remedy: str) -> UnprocessableError:
    return UnprocessableError(f"the field `{name}` {what}: {remedy}", problems=[Problem(f"/{name}", what, remedy)])
