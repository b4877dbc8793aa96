"""Pairs of a source and its target (seq2seq): from TSV files, cut into splits by the source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from service.database.dataset_columns import PairFacts, PairTokenizer
from service.datasets.content import Arrays, Content
from service.datasets.example_profiles import pairs_profile
from service.datasets.splits import Fractions, Indices, split_examples
from service.datasets.texts.tokens import smallest_type
from service.datasets.texts.utf8 import byte_order_mark_notes
from service.errors import UnprocessableError

PAIR_TOKENIZERS: tuple[PairTokenizer, ...] = get_args(PairTokenizer)

PAD, START, END = 0, 1, 2
"""Tokens of a target that no symbol has: what is beyond its end, what its decoder begins with, and its end.
A source has only the first."""

SOURCE_SPECIALS, TARGET_SPECIALS = 1, 3

MAX_TOKENS = 4096
"""Of one source or target."""

MAX_SYMBOLS = 65_536
"""Different tokens of one side."""

VARIANT = re.compile(r"\(\d+\)$")
"""The number that dictionaries put behind a headword with several entries: `read(2)`."""


@dataclass(frozen=True, slots=True)
class Side:
    """All sources, or all targets: their tokens one behind the other, how many each has, and the symbols by number."""

    tokens: NDArray[Any]
    lengths: NDArray[np.int32]
    symbols: list[str]

    def rows(self, chosen: Indices) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """The tokens and the lengths of some examples."""
        wanted = np.zeros(len(self.lengths), bool)
        wanted[chosen] = True
        return self.tokens[np.repeat(wanted, self.lengths)], self.lengths[chosen]


def read_pairs(
    path: Path, source_tokenizer: PairTokenizer, target_tokenizer: PairTokenizer, fractions: Fractions
) -> Content:
    """Read lines of a source, a tab and its target, and cut them into splits.

    All targets of one source are in the same split, and so are dictionary variants of it (`read`, `read(2)`). A line
    `source<tab>target` at the start is a header. Symbols are numbered in the order of their code points, behind the
    special tokens; a symbol that only validation has still gets a token.
    Splits hold `source` and `target` (tokens of all examples one behind the other, without specials), `source_lengths`
    and `target_lengths`. Raises UnprocessableError with the line and the remedy.
    """
    fractions.check()
    pairs = [(source, target) for source, target in _lines(path)]
    if not pairs:
        raise UnprocessableError("the file is empty: give lines of a source, a tab and its target")
    sources = _side([source for source, _ in pairs], source_tokenizer, SOURCE_SPECIALS, "source")
    targets = _side([target for _, target in pairs], target_tokenizer, TARGET_SPECIALS, "target")
    keys = [VARIANT.sub("", source).encode() for source, _ in pairs]
    chosen = split_examples(np.zeros(len(pairs), np.int8), keys, fractions)
    splits = {split: _split(sources, targets, indices) for split, indices in chosen.items()}
    facts: PairFacts = {
        "tokenizer": source_tokenizer,
        "target_tokenizer": target_tokenizer,
        "source_vocabulary_size": SOURCE_SPECIALS + len(sources.symbols),
        "vocabulary_size": TARGET_SPECIALS + len(targets.symbols),
        "source_length": int(sources.lengths.max()),
        # A decoder reads the start and the target; it is to say the target and its end.
        "target_length": int(targets.lengths.max()) + 1,
        "pad_id": PAD,
        "start_id": START,
        "end_id": END,
        "source_symbols": sources.symbols,
        "target_symbols": targets.symbols,
    }
    return Content(
        task="seq2seq",
        tokenizer=source_tokenizer,
        facts=facts,
        splits=splits,
        counts={
            split: {"examples": len(indices), "tokens": int(splits[split]["target_lengths"].sum()) + len(indices)}
            for split, indices in chosen.items()
        },
        profile=lambda: pairs_profile(splits, facts, END),
        notes=byte_order_mark_notes(path),
    )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            line = _decoded(raw, number).rstrip("\r\n")
            if not line.strip() or (number == 1 and line.lower() == "source\ttarget"):
                continue
            fields = line.split("\t")
            if len(fields) != 2:
                raise UnprocessableError(
                    f"line {number} has {len(fields) - 1} tabs: write a source, one tab and its target", line=number
                )
            for name, value in zip(("source", "target"), fields, strict=True):
                if not value.strip():
                    raise UnprocessableError(f"line {number} has an empty {name}: leave the line out", line=number)
            yield fields[0].strip(), fields[1].strip()


def _decoded(raw: bytes, number: int) -> str:
    try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UnprocessableError(
            f"line {number} is not UTF-8: its byte {error.start} (counted from 0) is 0x{raw[error.start]:02x}. "
            "Convert the file to UTF-8",
            line=number,
        ) from None
    if "\0" in line:
        raise UnprocessableError(f"line {number} holds a NUL character: take it out", line=number)
    return line


def _side(texts: Sequence[str], tokenizer: PairTokenizer, specials: int, name: str) -> Side:
    rows = [list(text) if tokenizer == "char" else text.split() for text in texts]
    lengths = np.array([len(row) for row in rows], np.int32)
    if (longest := int(lengths.max())) > MAX_TOKENS:
        raise UnprocessableError(
            f"the {name} {texts[int(lengths.argmax())][:40]!r}... has {longest:,} tokens: at most {MAX_TOKENS:,}; "
            "cut it into shorter ones"
        )
    symbols = sorted({symbol for row in rows for symbol in row})
    if len(symbols) > MAX_SYMBOLS:
        field = "tokenizer" if name == "source" else "target_tokenizer"
        raise UnprocessableError(
            f"the {name}s have {len(symbols):,} different tokens: at most {MAX_SYMBOLS:,}; register them with "
            f"{field}=char"
        )
    numbers = {symbol: number for number, symbol in enumerate(symbols, specials)}
    tokens = np.fromiter((numbers[symbol] for row in rows for symbol in row), np.int32, int(lengths.sum()))
    return Side(tokens.astype(smallest_type(specials + len(symbols))), lengths, symbols)


def _split(sources: Side, targets: Side, chosen: Indices) -> Arrays:
    source, source_lengths = sources.rows(chosen)
    target, target_lengths = targets.rows(chosen)
    return {
        "source": source,
        "source_lengths": source_lengths,
        "target": target,
        "target_lengths": target_lengths,
    }
