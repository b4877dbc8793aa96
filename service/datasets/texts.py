"""Text files as tokens: bytes or characters, cut into contiguous splits."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from service.common.formatting import plural
from service.database.dataset_columns import TextFacts, Tokenizer
from service.datasets.content import Content
from service.datasets.profiles import text_profile
from service.datasets.splits import Fractions
from service.errors import UnprocessableError

TOKENIZERS: tuple[Tokenizer, ...] = get_args(Tokenizer)

MINIMUM_TRAINING_TOKENS = 256
MINIMUM_TOKENS = 64
"""Of the validation split, and of the test split where there is one."""

CHUNK_BYTES = 1 << 22


def read_text(path: Path, tokenizer: Tokenizer, fractions: Fractions) -> Content:
    """Tokenize the file and cut it into splits, each with one array `tokens`.

    Characters are numbered in the order of their code points, over the whole text: a character that only validation
    has still gets a token. Raises UnprocessableError for text that is too short, is not UTF-8 (with the byte's offset),
    or holds NUL characters.
    """
    fractions.check()
    vocabulary: list[str] | None = None
    if tokenizer == "byte":
        tokens: NDArray[Any] = np.fromfile(path, dtype=np.uint8, offset=_begin(path))
        facts: TextFacts = {"tokenizer": "byte", "vocabulary_size": 256}
    else:
        tokens, vocabulary = _character_tokens(path)
        facts = {"tokenizer": "char", "vocabulary_size": len(vocabulary), "vocabulary": vocabulary}
    splits = _cut(tokens, fractions)
    return Content(
        task="causal_lm",
        tokenizer=tokenizer,
        facts=facts,
        splits={split: {"tokens": piece} for split, piece in splits.items()},
        counts={split: {"tokens": len(piece)} for split, piece in splits.items()},
        profile=lambda: text_profile(splits, vocabulary, facts["vocabulary_size"]),
        notes=byte_order_mark_notes(path),
    )


def byte_order_mark_notes(path: Path) -> tuple[str, ...]:
    """What is to be said of a file that begins with the mark by which some editors say that a text is UTF-8."""
    return ("the file begins with a byte order mark (U+FEFF), which is left out",) if _begin(path) else ()


def _begin(path: Path) -> int:
    """Where the text begins: behind the mark."""
    with path.open("rb") as file:
        return len(codecs.BOM_UTF8) if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0


def _character_tokens(path: Path) -> tuple[NDArray[Any], list[str]]:
    """The tokens of every character, and the characters by token; the file is read twice, a chunk at a time."""
    present = np.zeros(0x110000, dtype=bool)
    count = 0
    for chunk in _characters(path):
        present[chunk] = True
        count += len(chunk)
    if present[0]:
        raise UnprocessableError("the text holds NUL characters: register it with tokenizer=byte")
    used = np.flatnonzero(present)
    numbers = np.zeros(len(present), dtype=np.int32)
    numbers[used] = np.arange(len(used), dtype=np.int32)
    tokens = np.empty(count, dtype=smallest_type(len(used)))
    position = 0
    for chunk in _characters(path):
        tokens[position : position + len(chunk)] = numbers[chunk]
        position += len(chunk)
    return tokens, [chr(point) for point in used]


def _characters(path: Path) -> Iterator[NDArray[np.uint32]]:
    """The file's code points, some at a time."""
    offset, left = _begin(path), b""
    with path.open("rb") as file:
        file.seek(offset)
        while True:
            read = file.read(CHUNK_BYTES)
            data = left + read
            try:
                text, consumed = codecs.utf_8_decode(data, "strict", not read)
            except UnicodeDecodeError as error:
                raise UnprocessableError(
                    f"the file is not UTF-8: byte {offset + error.start} (counted from 0) is "
                    f"0x{data[error.start]:02x}. Convert it, or register it with tokenizer=byte",
                    byte_offset=offset + error.start,
                ) from None
            if text:
                yield np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
            if not read:
                return
            offset, left = offset + consumed, data[consumed:]


def smallest_type(vocabulary_size: int) -> type[np.generic]:
    """The narrowest type that the tokens of a vocabulary are kept in."""
    if vocabulary_size <= 1 << 8:
        return np.uint8
    return np.uint16 if vocabulary_size <= 1 << 16 else np.int32


def _cut(tokens: NDArray[Any], fractions: Fractions) -> dict[str, NDArray[Any]]:
    if not len(tokens):
        raise UnprocessableError("the file is empty")
    validation, test = (round(len(tokens) * share) for share in (fractions.validation, fractions.test))
    training = len(tokens) - validation - test
    sizes = {"training": (training, MINIMUM_TRAINING_TOKENS), "validation": (validation, MINIMUM_TOKENS)}
    if fractions.test:
        sizes["test"] = (test, MINIMUM_TOKENS)
    for split, (size, minimum) in sizes.items():
        if size < minimum:
            raise UnprocessableError(
                f"the file is too small: of its {plural(len(tokens), 'token')} the {split} split has {size}, "
                f"and needs at least {minimum}"
            )
    starts = {"training": 0, "validation": training, "test": training + validation}
    return {split: tokens[starts[split] : starts[split] + size] for split, (size, _) in sizes.items()}
