"""Uploaded files by the task that they are for: which fields go with a file, and who reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from service.database.dataset_columns import PairTokenizer
from service.datasets.content import Content
from service.datasets.labelled import read_labelled
from service.datasets.pairs import PAIR_TOKENIZERS, read_pairs
from service.datasets.splits import Fractions
from service.datasets.texts import tokenizers, utf8
from service.datasets.texts.reading import read_text
from service.datasets.texts.sources import one_text
from service.datasets.texts.tokenizers import GivenTokenizer, TextTokenizer
from service.errors import NotFoundError, UnprocessableError

Task = Literal["causal_lm", "classification", "seq2seq"]
TASKS: tuple[Task, ...] = get_args(Task)
"""What a file can be registered for."""

TOKENIZER_FILE = "tokenizer_file"

CHECKPOINT = "checkpoint:"
"""How a tokenizer's name begins that is a checkpoint's."""

FIELDS = ("name", "task", "tokenizer", "target_tokenizer", "column", "uploads", "validation", "test")

_FOREIGN: Mapping[str, Mapping[str, str]] = {
    "causal_lm": {"target_tokenizer": "a text has no targets apart"},
    "classification": {
        "tokenizer": "the file holds tokens already",
        "column": "every column but `label` is a token",
        "target_tokenizer": "a class is no sequence of tokens",
        TOKENIZER_FILE: "the file holds tokens already",
    },
    "seq2seq": {
        "column": "a line is a source, a tab and its target",
        TOKENIZER_FILE: "sources and targets are read as `tokenizer` and `target_tokenizer` say",
    },
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
            if name == "uploads":
                raise _wrong(name, "is missing, and so is a `file`", "send the data as one")
            raise _wrong(name, "is missing", "give it")
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

    files: Sequence[Path]
    """In the order in which they were sent."""
    tokenizer: Path | None
    """A `tokenizer.json`."""
    scratch: Path
    """An empty folder that lasts as long as the content that is read."""
    find_tokenizer: Callable[[str], Path]
    """Answers the `tokenizer.json` of a checkpoint by its name. Raises NotFoundError if there is none."""


def read(received: Received, form: Form, *, limit_bytes: int) -> Content:
    """Read an uploaded file as its form says.

    Raises UnprocessableError, or PayloadTooLargeError if it unpacks to more than the limit.
    """
    task = form.choice("task", TASKS, TASKS[0])
    for name, why in _FOREIGN[task].items():
        if name in form or (name == TOKENIZER_FILE and received.tokenizer is not None):
            raise _wrong(name, f"does not go with {task}", f"leave it out: {why}")
    fractions = Fractions(form.number("validation", 0.1), form.number("test", 0.0))
    if task == "causal_lm":
        return _text(received, form, fractions, limit_bytes)
    if len(received.files) > 1:
        raise _wrong("file", "comes several times", f"send one: {task} is read from one file")
    (file,) = received.files
    if task == "classification":
        return read_labelled(file, fractions, limit_bytes=limit_bytes)
    of_sources: PairTokenizer = form.choice("tokenizer", PAIR_TOKENIZERS, PAIR_TOKENIZERS[0])
    of_targets: PairTokenizer = form.choice("target_tokenizer", PAIR_TOKENIZERS, of_sources)
    utf8.refuse_utf16(file)
    return read_pairs(file, of_sources, of_targets, fractions)


def _text(received: Received, form: Form, fractions: Fractions, limit_bytes: int) -> Content:
    tokenizer = _text_tokenizer(received, form)
    if tokenizer != "byte" or "column" in form:
        # To a text of bytes, any file is one.
        for file in received.files:
            utf8.refuse_utf16(file)
    column = form.required("column") if "column" in form else None
    source = one_text(received.files, column, received.scratch, limit_bytes)
    return read_text(source.path, tokenizer, fractions, received.scratch, source.notes)


def _text_tokenizer(received: Received, form: Form) -> TextTokenizer:
    if received.tokenizer is not None:
        if "tokenizer" in form:
            raise _wrong("tokenizer", "is named beside a file", f"leave it out: `{TOKENIZER_FILE}` is the tokenizer")
        return GivenTokenizer(received.tokenizer)
    named = form.text("tokenizer", "byte")
    if named.startswith(CHECKPOINT):
        try:
            return GivenTokenizer(received.find_tokenizer(named.removeprefix(CHECKPOINT)))
        except NotFoundError as error:
            raise _wrong("tokenizer", f"is {named[:80]!r}", str(error)) from None
    found = tokenizers.parse(named)
    if found is None:
        raise _wrong("tokenizer", f"is {named[:40]!r}", f"choose {tokenizers.CHOICES}")
    return found


def _wrong(name: str, what: str, remedy: str) -> UnprocessableError:
    return UnprocessableError.at(f"/{name}", f"the field `{name}` {what}", remedy)
