"""Tokens of a split: written to a file as they come, mapped from it, read in pieces."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[Any]
"""Unsigned integers below the vocabulary's size, 1-D; usually mapped from a file."""

PIECE_TOKENS = 1 << 20


def smallest_type(vocabulary_size: int) -> type[np.generic]:
    """The narrowest type that the tokens of a vocabulary are kept in."""
    if vocabulary_size <= 1 << 8:
        return np.uint8
    return np.uint16 if vocabulary_size <= 1 << 16 else np.int32


def write(path: Path, pieces: Iterable[Tokens], vocabulary_size: int) -> Tokens:
    """Write tokens to a file, some at a time, and map them."""
    kept = np.dtype(smallest_type(vocabulary_size))
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece.astype(kept).data)
    return mapped(path, kept)


def mapped(path: Path, kept: np.dtype[Any], start: int = 0, count: int | None = None) -> Tokens:
    """The tokens of a file from its byte `start` on (`count` of them, or all), mapped and read-only."""
    there = (path.stat().st_size - start) // kept.itemsize
    count = there if count is None else count
    if count == 0:
        # Nothing cannot be mapped.
        return np.empty(0, kept)
    return np.memmap(path, kept, "r", offset=start, shape=(count,))


def cut(tokens: Tokens, start: int, count: int) -> Tokens:
    """Some of the tokens. What was mapped is mapped again from there."""
    if not _is_mapped(tokens):
        return tokens[start : start + count]
    return mapped(Path(str(tokens.filename)), tokens.dtype, tokens.offset + start * tokens.itemsize, count)


def pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The same array (mapped: 1-D) in pieces, in order.

    What is mapped is read from its file: pages that are only looked at once do not stay in the process's memory.
    """
    if not _is_mapped(array):
        yield from (array[start : start + PIECE_TOKENS] for start in range(0, len(array), PIECE_TOKENS))
        return
    path = str(array.filename)
    for start in range(0, len(array), PIECE_TOKENS):
        count = min(PIECE_TOKENS, len(array) - start)
        yield np.fromfile(path, array.dtype, count, offset=array.offset + start * array.itemsize)


def counts(tokens: Tokens, vocabulary_size: int) -> NDArray[np.int64]:
    """How often each token of the vocabulary comes."""
    found = np.zeros(vocabulary_size, np.int64)
    for piece in pieces(tokens):
        found += np.bincount(piece, minlength=vocabulary_size)
    return found


def _is_mapped(array: NDArray[Any]) -> TypeGuard[np.memmap[Any, np.dtype[Any]]]:
    """Whether it is a mapping as it was made: a slice of one does not know where in the file it begins."""
    return isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap)
