"""Tokenizers of parts of words: byte-level BPE trained on a text, or a `tokenizer.json`. No code comes with either.

Byte-level BPE: Sennrich et al. 2016, arXiv 1508.07909, over bytes as Radford et al. 2019 (GPT-2) do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from service.datasets.texts import utf8
from service.datasets.texts.utf8 import ByteRange
from service.errors import UnprocessableError

ALPHABET_SIZE = 256
"""Every byte is a token: no text is unknown to a byte-level tokenizer."""

MOST_TRAINED = 131_072
MOST_TOKENS = 1 << 20
"""Of a given tokenizer."""

MOST_FILE_BYTES = 64 << 20
BATCH_PIECES = 16
"""Encoded at once, on all cores."""

MOST_WORDS = 200_000
"""Whose tokens are remembered: about 60 MB."""

_WORD = re.compile(r"[ \t\r\n]*[^ \t\r\n]+|[ \t\r\n]+")
_OTHER_WHITESPACE = re.compile(r"[^\S \t\r\n]")

_Found = TypeVar("_Found")


class SubwordTokenizer:
    """Reads texts as parts of words."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        self.vocabulary_size = highest + 1
        """One more than the highest token: files may leave numbers out."""
        self._known: dict[str, list[int]] = {}

    @classmethod
    def trained(cls, pieces: Iterable[str], vocabulary_size: int) -> SubwordTokenizer:
        """Byte-level BPE of at most `vocabulary_size` tokens: fewer if the text has no more to merge. The same text
        gives the same tokenizer."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=[],
            show_progress=False,
        )
        tokenizer.train_from_iterator(pieces, trainer)
        return cls(tokenizer)

    @classmethod
    def read(cls, path: Path) -> SubwordTokenizer:
        """Of a `tokenizer.json` of the library `tokenizers`. Raises UnprocessableError with what is wrong in it."""
        if path.stat().st_size > MOST_FILE_BYTES:
            raise _wrong(f"is larger than {MOST_FILE_BYTES:,} bytes", "give the tokenizer.json of one tokenizer")
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            raise _wrong("is not UTF-8", "give a tokenizer.json, not a model of another format") from None
        tokenizer = _guarded(lambda: Tokenizer.from_str(text), "is no tokenizer")
        if getattr(tokenizer.model, "dropout", None):
            raise _wrong("has `dropout`, so that a text's tokens are drawn", "set it to null")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        found = cls(tokenizer)
        if not 2 <= found.vocabulary_size <= MOST_TOKENS:
            raise _wrong(f"has tokens up to {found.vocabulary_size - 1:,}", f"2 to {MOST_TOKENS:,} tokens are taken")
        return found

    def written(self) -> str:
        """The `tokenizer.json`."""
        return self._tokenizer.to_str(pretty=True)

    def encode(self, pieces: Iterable[str]) -> Iterator[NDArray[np.int64]]:
        """The tokens of each piece, without special tokens before and after."""
        if self._is_by_word():
            yield from map(self._encode_by_word, pieces)
            return
        source = iter(pieces)
        while some := list(islice(source, BATCH_PIECES)):
            encoded = _guarded(
                lambda some=some: self._tokenizer.encode_batch_fast(some, add_special_tokens=False),
                "cannot read the text",
            )
            yield from (np.array(each.ids, np.int64) for each in encoded)

    def _is_by_word(self) -> bool:
        """Whether a word and the whitespace before it always have the same tokens: of byte-level tokenizers, whose rule
        (GPT-2's) puts no token over the end of a word."""
        written = json.loads(self.written())
        before = written["pre_tokenizer"] or {}
        is_plain = not written["normalizer"] and not written["added_tokens"] and written["model"]["type"] == "BPE"
        return is_plain and before.get("type") == "ByteLevel" and before["use_regex"] and not before["add_prefix_space"]

    def _encode_by_word(self, piece: str) -> NDArray[np.int64]:
        """The same tokens some ten times as fast: of each word once."""
        if _OTHER_WHITESPACE.search(piece):
            # The rule looks at runs of all whitespace; words are found by that of ASCII alone.
            return np.array(self._tokenizer.encode(piece, add_special_tokens=False).ids, np.int64)
        words = _WORD.findall(piece)
        if len(self._known) > MOST_WORDS:
            self._known.clear()
        unknown = list(dict.fromkeys(word for word in words if word not in self._known))
        for word, encoded in zip(unknown, self._tokenizer.encode_batch_fast(unknown), strict=True):
            self._known[word] = encoded.ids
        return np.fromiter(chain.from_iterable(map(self._known.__getitem__, words)), np.int64)

    def gives_back(self, text: ByteRange) -> bool:
        """Whether tokens decode to the text that they were read from, as the beginning of this one shows."""
        sample = list(islice(utf8.pieces(text), BATCH_PIECES))
        encoded = self.encode(sample)
        return all(
            self._tokenizer.decode(ids.tolist(), skip_special_tokens=False) == piece
            for ids, piece in zip(encoded, sample, strict=True)
        )

    def symbol(self, token: int) -> str:
        """A token as people read it: its text, or, if it is no whole character, as the vocabulary writes it."""
        text = self._tokenizer.decode([token], skip_special_tokens=False)
        if text.strip() and "�" not in text and text.isprintable():
            return text
        return self._tokenizer.id_to_token(token) or f"#{token}"


def _guarded(call: Callable[[], _Found], what: str) -> _Found:
    """What the library answers. Its errors have no class of their own, and what it did not foresee is no Exception."""
    try:
        return call()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).split("\n")[0][:200]
        remedy = "give a file that tokenizers.Tokenizer.from_file reads"
        raise _wrong(f"{what}: {reason}", remedy) from None


def _wrong(what: str, remedy: str) -> UnprocessableError:
    return UnprocessableError(f"the tokenizer.json {what}: {remedy}")
