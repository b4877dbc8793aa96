"""Which tokenizer a text is to have, as an upload says it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from service.datasets.texts.subwords import ALPHABET_SIZE, MOST_TRAINED


@dataclass(frozen=True, slots=True)
class TrainedTokenizer:
    """Byte-level BPE, trained on the training split."""

    vocabulary_size: int

    def __str__(self) -> str:
        return f"bpe:{self.vocabulary_size}"


@dataclass(frozen=True, slots=True)
class GivenTokenizer:
    """A `tokenizer.json`."""

    path: Path

    def __str__(self) -> str:
        return "file"


TextTokenizer: TypeAlias = Literal["byte", "char"] | TrainedTokenizer | GivenTokenizer

CHOICES = (
    "byte, char, bpe:N (N tokens, such as bpe:8192), or checkpoint:NAME (that of a checkpoint), or send a "
    "tokenizer.json as the file `tokenizer_file`"
)

_TRAINED = re.compile(r"bpe:([0-9]{1,7})")


def parse(text: str) -> TextTokenizer | None:
    """The tokenizer that is named so; None if there is none."""
    if text == "byte" or text == "char":
        return text
    found = _TRAINED.fullmatch(text)
    if found is None or not ALPHABET_SIZE < int(found[1]) <= MOST_TRAINED:
        return None
    return TrainedTokenizer(int(found[1]))
