"""Text files as tokens: bytes or characters, cut into contiguous parts."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from service.errors import Unprocessable

Tokenizer = Literal["byte", "char"]
TOKENIZERS: tuple[Tokenizer, ...] = get_args(Tokenizer)

MINIMUM_TRAINING_TOKENS = 256
MINIMUM_TOKENS = 64
"""Of the validation part, and of the test part where there is one."""

CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Fractions:
    """How a text is cut, in this order: training takes what is left, then `validation`, then `test`."""

    validation: float
    test: float = 0.0

    def check(self) -> None:
        """Raise Unprocessable unless every part can be there and training keeps at least half."""
        if not 0 < self.validation <= 0.5:
            raise Unprocessable(f"validation={self.validation:g}: give a fraction above 0 and at most 0.5, such as 0.1")
        if not 0 <= self.test <= 0.5:
            raise Unprocessable(f"test={self.test:g}: give a fraction from 0 (no test part) to 0.5")
        if self.validation + self.test > 0.5:
            raise Unprocessable(
                f"validation and test take {self.validation + self.test:.0%} of the text: "
                "leave at least half of it to train on"
            )


@dataclass(frozen=True, slots=True)
class Text:
    """A tokenized text. `vocabulary` is the characters by token, or None where a token is a byte."""

    parts: dict[str, NDArray[Any]]
    vocabulary: list[str] | None
    vocabulary_size: int

    @property
    def facts(self) -> dict[str, Any]:
        """What a model and a reader of its tokens need to know."""
        if self.vocabulary is None:
            return {"tokenizer": "byte", "vocabulary_size": self.vocabulary_size}
        return {"tokenizer": "char", "vocabulary_size": self.vocabulary_size, "vocabulary": self.vocabulary}


def read_text(path: Path, tokenizer: Tokenizer, fractions: Fractions) -> Text:
    """Tokenize the file and cut it into parts.

    Characters are numbered in the order of their code points, over the whole text: a character that only validation
    has still gets a token. Raises Unprocessable for text that is too short, is not UTF-8 (with the byte's offset), or
    holds NUL characters.
    """
    fractions.check()
    if tokenizer == "byte":
        tokens: NDArray[Any] = np.fromfile(path, dtype=np.uint8)
        return Text(_cut(tokens, fractions), None, 256)
    tokens, vocabulary = _character_tokens(path)
    return Text(_cut(tokens, fractions), vocabulary, len(vocabulary))


def _character_tokens(path: Path) -> tuple[NDArray[Any], list[str]]:
    """The tokens of every character, and the characters by token; the file is read twice, a chunk at a time."""
    present = np.zeros(0x110000, dtype=bool)
    count = 0
    for chunk in _characters(path):
        present[chunk] = True
        count += len(chunk)
    if present[0]:
        raise Unprocessable("the text holds NUL characters: register it with tokenizer=byte")
    used = np.flatnonzero(present)
    numbers = np.zeros(len(present), dtype=np.int32)
    numbers[used] = np.arange(len(used), dtype=np.int32)
    tokens = np.empty(count, dtype=_smallest_type(len(used)))
    position = 0
    for chunk in _characters(path):
        tokens[position : position + len(chunk)] = numbers[chunk]
        position += len(chunk)
    return tokens, [chr(point) for point in used]


def _characters(path: Path) -> Iterator[NDArray[np.uint32]]:
    """The file's code points, some at a time."""
    offset, left = 0, b""
    with path.open("rb") as file:
        while True:
            read = file.read(CHUNK_BYTES)
            data = left + read
            try:
                text, consumed = codecs.utf_8_decode(data, "strict", not read)
            except UnicodeDecodeError as error:
                raise Unprocessable(
                    f"the file is not UTF-8: byte {offset + error.start} (counted from 0) is "
                    f"0x{data[error.start]:02x}. Convert it, or register it with tokenizer=byte",
                    byte_offset=offset + error.start,
                ) from None
            if text:
                yield np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
            if not read:
                return
            offset, left = offset + consumed, data[consumed:]


def _smallest_type(vocabulary_size: int) -> type[np.generic]:
    if vocabulary_size <= 1 << 8:
        return np.uint8
    return np.uint16 if vocabulary_size <= 1 << 16 else np.int32


def _cut(tokens: NDArray[Any], fractions: Fractions) -> dict[str, NDArray[Any]]:
    if not len(tokens):
        raise Unprocessable("the file is empty")
    validation, test = (round(len(tokens) * share) for share in (fractions.validation, fractions.test))
    training = len(tokens) - validation - test
    sizes = {"training": (training, MINIMUM_TRAINING_TOKENS), "validation": (validation, MINIMUM_TOKENS)}
    if fractions.test:
        sizes["test"] = (test, MINIMUM_TOKENS)
    for part, (size, minimum) in sizes.items():
        if size < minimum:
            raise Unprocessable(
                f"the file is too small: of its {len(tokens)} tokens, {size} fall into the {part} part, "
                f"which needs at least {minimum}"
            )
    starts = {"training": 0, "validation": training, "test": training + validation}
    return {part: tokens[starts[part] : starts[part] + size] for part, (size, _) in sizes.items()}
