"""Text files as tokens: bytes, characters or parts of words, cut into contiguous splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.common.formatting import plural
from service.common.hashing import file_hash
from service.database.dataset_columns import SplitCounts, TextFacts
from service.datasets.content import Content
from service.datasets.splits import Fractions
from service.datasets.texts import tokenizing_process, tokens, utf8
from service.datasets.texts.alphabets import Alphabet, ByteAlphabet, CharacterAlphabet, SubwordAlphabet
from service.datasets.texts.profiles import text_profile
from service.datasets.texts.tokenizers import GivenTokenizer, TextTokenizer, TrainedTokenizer
from service.datasets.texts.tokenizing_process import Request, tokenize
from service.datasets.texts.tokens import Tokens
from service.errors import UnprocessableError

MINIMUM_TRAINING_TOKENS = 256
MINIMUM_TOKENS = 64
"""Of the validation split, and of the test split if there is one."""

LOSSY_NOTE = (
    "the tokenizer does not give the text back: what it drops or changes costs a model nothing, so there is no "
    "bits_per_byte"
)

CODE_POINTS = 0x110000


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A text as tokens by split, with what they mean."""

    splits: Mapping[str, Tokens]
    facts: TextFacts
    alphabet: Alphabet
    split_bytes: Mapping[str, int]
    """How many bytes of UTF-8 (of a text of bytes: bytes) each split is; empty if tokens are not all of the text."""
    tokenizer_file: Path | None = None
    notes: tuple[str, ...] = ()


def read_text(
    path: Path, tokenizer: TextTokenizer, fractions: Fractions, scratch: Path, notes: tuple[str, ...] = ()
) -> Content:
    """Tokenize the file and cut it into splits, each with one array `tokens`, which is mapped from a file in `scratch`
    (of bytes: from the file itself).

    Characters are numbered in the order of their code points, over the whole text: a character that only validation
    has still gets a token. For parts of words the text is cut first, at the same characters: a tokenizer is trained on
    the training split alone, and no token goes on over a cut. `notes` are those of the file. Raises UnprocessableError
    for text that is too short, is not UTF-8 (with the byte's offset), or holds NUL characters, and for a tokenizer that
    cannot be used.
    """
    fractions.check()
    if tokenizer == "byte":
        text = _bytes(path, fractions)
    elif tokenizer == "char":
        text = _characters(path, fractions, scratch)
    else:
        text = _subwords(path, tokenizer, fractions, scratch)
    return Content(
        task="causal_lm",
        tokenizer=text.facts["tokenizer"],
        facts=text.facts,
        splits={split: {"tokens": piece} for split, piece in text.splits.items()},
        counts={split: _counts(piece, text.split_bytes.get(split)) for split, piece in text.splits.items()},
        profile=lambda: text_profile(text.splits, text.alphabet),
        notes=(*notes, *text.notes),
        tokenizer_file=text.tokenizer_file,
    )


def _counts(piece: Tokens, size_bytes: int | None) -> SplitCounts:
    return {"tokens": len(piece)} if size_bytes is None else {"tokens": len(piece), "bytes": size_bytes}


def _bytes(path: Path, fractions: Fractions) -> Tokenized:
    whole = tokens.mapped(path, np.dtype(np.uint8), utf8.begin(path))
    splits = _cut(whole, fractions)
    facts: TextFacts = {"tokenizer": "byte", "vocabulary_size": 256}
    return Tokenized(splits, facts, ByteAlphabet(), {split: len(piece) for split, piece in splits.items()})


def _characters(path: Path, fractions: Fractions, scratch: Path) -> Tokenized:
    """The file is read twice, a chunk at a time."""
    present = np.zeros(CODE_POINTS, dtype=bool)
    for chunk in utf8.characters(path):
        present[chunk] = True
    utf8.refuse_nul(bool(present[0]))
    used = np.flatnonzero(present)
    numbers = np.zeros(CODE_POINTS, dtype=np.int32)
    numbers[used] = np.arange(len(used), dtype=np.int32)
    numbered = (numbers[chunk] for chunk in utf8.characters(path))
    splits = _cut(tokens.write(scratch / "characters", numbered, len(used)), fractions)
    vocabulary = [chr(point) for point in used]
    facts: TextFacts = {"tokenizer": "char", "vocabulary_size": len(vocabulary), "vocabulary": vocabulary}
    widths = np.array([len(character.encode()) for character in vocabulary], np.int64)
    sizes = {split: int(tokens.counts(piece, len(vocabulary)) @ widths) for split, piece in splits.items()}
    return Tokenized(splits, facts, CharacterAlphabet(vocabulary), sizes)


def _subwords(path: Path, wanted: TrainedTokenizer | GivenTokenizer, fractions: Fractions, scratch: Path) -> Tokenized:
    cuts = _shares(utf8.count_characters(path), fractions)
    offsets = utf8.byte_offsets(path, [start + size for start, size in cuts.values()])
    starts = [utf8.begin(path), *offsets[:-1]]
    ranges = {
        split: utf8.ByteRange(path, start, stop) for split, start, stop in zip(cuts, starts, offsets, strict=True)
    }
    stored = wanted.path if isinstance(wanted, GivenTokenizer) else scratch / "tokenizer.json"
    answer = tokenize(
        Request(
            text=str(path),
            ranges={split: (text.start, text.stop) for split, text in ranges.items()},
            tokenizer=str(stored),
            vocabulary_size=wanted.vocabulary_size if isinstance(wanted, TrainedTokenizer) else None,
            folder=str(scratch),
            most_bytes=tokenizing_process.ADDRESS_SPACE_BYTES,
        )
    )
    kept = np.dtype(tokens.smallest_type(answer.vocabulary_size))
    splits = {split: tokens.mapped(scratch / split, kept) for split in ranges}
    _check_sizes({split: len(piece) for split, piece in splits.items()})
    facts: TextFacts = {
        "tokenizer": str(wanted),
        "vocabulary_size": answer.vocabulary_size,
        "tokenizer_sha256": file_hash(stored),
    }
    alphabet = SubwordAlphabet(json.loads((scratch / "symbols.json").read_text("utf-8")), ranges)
    if not answer.gives_back:
        return Tokenized(splits, facts, alphabet, {}, stored, (LOSSY_NOTE,))
    return Tokenized(splits, facts, alphabet, {split: len(text) for split, text in ranges.items()}, stored)


def _cut(whole: Tokens, fractions: Fractions) -> dict[str, Tokens]:
    cuts = _shares(len(whole), fractions)
    return {split: tokens.cut(whole, start, size) for split, (start, size) in cuts.items()}


def _shares(count: int, fractions: Fractions) -> dict[str, tuple[int, int]]:
    """Where each split begins, and how long it is; training, validation, test. Raises UnprocessableError."""
    if not count:
        raise UnprocessableError("the file is empty")
    validation, test = (round(count * share) for share in (fractions.validation, fractions.test))
    training = count - validation - test
    cuts = {"training": (0, training), "validation": (training, validation)}
    if fractions.test:
        cuts["test"] = (training + validation, test)
    _check_sizes({split: size for split, (_, size) in cuts.items()})
    return cuts


def _check_sizes(sizes: Mapping[str, int]) -> None:
    for split, size in sizes.items():
        minimum = MINIMUM_TRAINING_TOKENS if split == "training" else MINIMUM_TOKENS
        if size < minimum:
            raise UnprocessableError(
                f"the file is too small: of its {plural(sum(sizes.values()), 'token')} the {split} split has {size}, "
                f"and needs at least {minimum}"
            )
