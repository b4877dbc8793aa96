"""What a text's tokens mean to people: their names, and the text that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from service.datasets.texts.subwords import SubwordTokenizer
from service.datasets.texts.tokens import Tokens
from service.datasets.texts.utf8 import ByteRange


class Alphabet(Protocol):
    """The tokens of a text."""

    @property
    def vocabulary_size(self) -> int: ...

    def symbol(self, token: int) -> str:
        """How a token is shown."""
        ...

    def text(self, split: str, tokens: Tokens) -> str:
        """The text at the beginning of a split, of which `tokens` are the first."""
        ...


class ByteAlphabet:
    """Bytes."""

    vocabulary_size = 256

    def symbol(self, token: int) -> str:
        return chr(token) if 32 <= token < 127 else f"0x{token:02x}"

    def text(self, split: str, tokens: Tokens) -> str:
        return tokens.astype(np.uint8).tobytes().decode("utf-8", errors="replace")


class CharacterAlphabet:
    """Characters by their number."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._vocabulary = vocabulary
        self.vocabulary_size = len(vocabulary)

    def symbol(self, token: int) -> str:
        return self._vocabulary[token]

    def text(self, split: str, tokens: Tokens) -> str:
        points = np.array([ord(character) for character in self._vocabulary], dtype="<u4")
        return points[tokens].tobytes().decode("utf-32-le")


class SubwordAlphabet:
    """Parts of words."""

    def __init__(self, tokenizer: SubwordTokenizer, ranges: Mapping[str, ByteRange]) -> None:
        self._tokenizer = tokenizer
        self._ranges = ranges
        self.vocabulary_size = tokenizer.vocabulary_size

    def symbol(self, token: int) -> str:
        return self._tokenizer.symbol(token)

    def text(self, split: str, tokens: Tokens) -> str:
        """As many bytes as there are tokens: a shorter beginning, for which nothing is decoded."""
        return self._ranges[split].beginning(len(tokens))
