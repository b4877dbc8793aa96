"""What a text's tokens mean to people: their names, and the text that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from service.datasets.texts.tokens import Tokens
from service.datasets.texts.utf8 import ByteRange


class Alphabet(Protocol):
    """The tokens of a text."""

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def most_fitted(self) -> int:
        """To how many tokens of training the baselines are fitted: enough for registering to stay a matter of seconds,
        and of some hundred megabytes if nearly every n-gram is another one."""
        ...

    def symbol(self, token: int) -> str:
        """How a token is shown."""
        ...

    def text(self, split: str, tokens: Tokens) -> str:
        """The text at the beginning of a split, of which `tokens` are the first."""
        ...


class ByteAlphabet:
    """Bytes."""

    vocabulary_size = 256
    most_fitted = 4_000_000

    def symbol(self, token: int) -> str:
        return chr(token) if 32 <= token < 127 else f"0x{token:02x}"

    def text(self, split: str, tokens: Tokens) -> str:
        return tokens.astype(np.uint8).tobytes().decode("utf-8", errors="replace")


class CharacterAlphabet:
    """Characters by their number."""

    most_fitted = 4_000_000

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

    most_fitted = 2_000_000

    def __init__(self, symbols: Sequence[str], ranges: Mapping[str, ByteRange]) -> None:
        self._symbols = symbols
        self._ranges = ranges
        self.vocabulary_size = len(symbols)

    def symbol(self, token: int) -> str:
        return self._symbols[token]

    def text(self, split: str, tokens: Tokens) -> str:
        """As many bytes as there are tokens: a shorter beginning, for which nothing is decoded."""
        return self._ranges[split].beginning(len(tokens))
