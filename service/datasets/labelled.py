"""Labelled rows of tokens (classification): from CSV or NPZ files, cut into splits class by class."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.database.dataset_columns import LabelledFacts, PaddedVocabulary
from service.datasets.content import Arrays, Content
from service.datasets.example_profiles import labelled_profile
from service.datasets.npz import is_zip, read_arrays
from service.datasets.splits import Fractions, Indices, split_examples
from service.datasets.texts.tokens import smallest_type
from service.datasets.texts.utf8 import byte_order_mark_notes, refuse_utf16
from service.errors import UnprocessableError

LABEL = "label"
"""The column of a CSV file that holds the class."""

MAX_VOCABULARY = 1_000_000
MAX_CLASSES = 10_000
MAX_LABEL_CHARACTERS = 200
NPZ_ARRAYS = ("tokens", "labels", "lengths", "attention_mask")


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """N examples: tokens [N, T] and the class of each. `lengths` [N] if rows differ in length (what is beyond is
    padding); `attention_mask` [N, T, T] if the data says which token may attend to which (1: may)."""

    tokens: NDArray[Any]
    labels: NDArray[Any]
    lengths: NDArray[np.int32] | None = None
    attention_mask: NDArray[np.uint8] | None = None


def read_labelled(path: Path, fractions: Fractions, *, limit_bytes: int) -> Content:
    """Read a CSV or an NPZ file and cut it into splits.

    CSV: a header, a column `label` with any text, every other column a token; empty cells at the end of a row are
    padding. NPZ: `tokens` [N, T] and `labels` [N], perhaps `lengths` [N] and `attention_mask` [N, T, T].
    Raises UnprocessableError with the row and the remedy; PayloadTooLargeError if an NPZ file unpacks to more than
    the limit.
    """
    fractions.check()
    if is_zip(path):
        return labelled_content(_from_npz(read_arrays(path, limit_bytes=limit_bytes)), fractions)
    refuse_utf16(path)
    return labelled_content(_from_csv(path), fractions, byte_order_mark_notes(path))


def labelled_content(rows: LabelledRows, fractions: Fractions, notes: Sequence[str] = ()) -> Content:
    """The rows as a dataset: classes numbered in the order of their names, padding as a token of its own.

    `notes` are those of the file.
    """
    names, classes = _classes(rows.labels)
    tokens, vocabulary = _padded(rows)
    facts: LabelledFacts = {
        **vocabulary,
        "classes": len(names),
        "sequence_length": tokens.shape[1],
        "labels": names,
    }
    arrays: dict[str, NDArray[Any]] = {"tokens": tokens, "labels": classes}
    if rows.lengths is not None:
        arrays["lengths"] = rows.lengths
    if rows.attention_mask is not None:
        arrays["attention_mask"] = rows.attention_mask
        facts["attention_mask"] = True
    keys = [row.tobytes() for row in tokens]
    splits = {split: _rows(arrays, chosen) for split, chosen in split_examples(classes, keys, fractions).items()}
    _check_classes(splits["training"]["labels"], names)
    return Content(
        task="classification",
        tokenizer=None,
        facts=facts,
        splits=splits,
        counts={split: {"examples": len(piece["labels"])} for split, piece in splits.items()},
        profile=lambda: labelled_profile(splits, names, facts["vocabulary_size"]),
        notes=(*notes, *_missing_classes(splits, names)),
    )


def _rows(arrays: Arrays, chosen: Indices) -> Arrays:
    return {name: values[chosen] for name, values in arrays.items()}


def _classes(labels: NDArray[Any]) -> tuple[list[str], NDArray[np.int32]]:
    """The names of the classes in order (numbers by size, other text by its letters), and each example's class."""
    values, classes = np.unique(labels, return_inverse=True)
    names = [str(value) for value in values.tolist()]
    if len(names) < 2:
        raise UnprocessableError(f"every label is {names[0]!r}: a classification needs at least 2 classes")
    if len(names) > MAX_CLASSES:
        raise UnprocessableError(
            f"there are {len(names):,} different labels: at most {MAX_CLASSES:,} classes; group values into classes"
        )
    order = sorted(range(len(names)), key=lambda index: int(names[index])) if all(map(_is_number, names)) else None
    if order is not None:
        names = [names[index] for index in order]
        classes = np.argsort(order)[classes]
    for name in names:
        if not name.strip() or len(name) > MAX_LABEL_CHARACTERS or not name.isprintable():
            raise UnprocessableError(
                f"the label {name[:40]!r} cannot name a class: use 1 to {MAX_LABEL_CHARACTERS} characters that "
                "can be printed"
            )
    return names, classes.astype(np.int32)


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and len(name) < 20


def _padded(rows: LabelledRows) -> tuple[NDArray[Any], PaddedVocabulary]:
    """The tokens with a token of its own for padding, and the vocabulary's facts."""
    tokens = rows.tokens
    vocabulary_size = int(tokens.max()) + 1
    if vocabulary_size > MAX_VOCABULARY:
        row = int(np.argmax(tokens.max(axis=1)))
        raise UnprocessableError(
            f"example {row + 1} has the token {vocabulary_size - 1}: tokens are numbered from 0 without gaps, "
            f"below {MAX_VOCABULARY:,}"
        )
    vocabulary: PaddedVocabulary = {"vocabulary_size": vocabulary_size}
    if rows.lengths is not None:
        beyond = np.arange(tokens.shape[1]) >= rows.lengths[:, None]
        tokens = np.where(beyond, vocabulary_size, tokens)
        vocabulary = {"vocabulary_size": vocabulary_size + 1, "pad_id": vocabulary_size}
    return tokens.astype(smallest_type(vocabulary["vocabulary_size"])), vocabulary


def _check_classes(training_labels: NDArray[Any], names: Sequence[str]) -> None:
    counts = np.bincount(training_labels, minlength=len(names))
    if (missing := np.flatnonzero(counts == 0)).size:
        raise UnprocessableError(f"no example of the class {names[missing[0]]!r} is left to train on: give more of it")


def _missing_classes(splits: Mapping[str, Arrays], names: Sequence[str]) -> Iterator[str]:
    """A line for each split that lacks examples of some class."""
    for split, arrays in splits.items():
        missing = np.flatnonzero(np.bincount(arrays["labels"], minlength=len(names)) == 0)
        if missing.size:
            some = ", ".join(repr(names[index]) for index in missing[:5])
            more = f" and {missing.size - 5} more" if missing.size > 5 else ""
            yield f"the {split} split has no example of {some}{more}: there are too few of them to be divided"


# --- CSV ------------------------------------------------------------------------------------------------------------


def _from_csv(path: Path) -> LabelledRows:
    tokens, lengths, labels = array("i"), array("i"), list[str]()
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        rows = _csv_rows(reader)
        header = next(rows, None)
        if header is None:
            raise UnprocessableError("the file is empty")
        place = _label_column(header)
        for row in rows:
            if len(row) != len(header):
                raise UnprocessableError(
                    f"line {reader.line_num} has {len(row)} fields, the header has {len(header)}: give every row as "
                    "many; leave the last cells of a shorter example empty",
                    line=reader.line_num,
                )
            labels.append(_label(row.pop(place), reader.line_num))
            columns = header[:place] + header[place + 1 :]
            lengths.append(_take_tokens(row, tokens, columns, reader.line_num))
    if not labels:
        raise UnprocessableError("the file has a header and no rows")
    return LabelledRows(*_table(tokens, lengths, labels))


def _csv_rows(reader: Any) -> Iterator[list[str]]:
    """The rows that are not empty."""
    try:
        yield from (row for row in reader if row)
    except csv.Error as error:
        raise UnprocessableError(f"line {reader.line_num} is not CSV: {error}", line=reader.line_num) from None
    except UnicodeDecodeError as error:
        raise UnprocessableError(
            f"the file is neither UTF-8 text nor NPZ: after line {reader.line_num} comes the byte "
            f"0x{error.object[error.start]:02x}. Convert it to UTF-8",
            line=reader.line_num + 1,
        ) from None


def _label_column(header: list[str]) -> int:
    names = [name.strip().lower() for name in header]
    if names.count(LABEL) != 1:
        has = "no column" if LABEL not in names else "several columns"
        raise UnprocessableError(
            f"line 1 has {has} `{LABEL}`: begin with a header such as t0,t1,t2,{LABEL}, one column a token", line=1
        )
    if len(header) < 2:
        raise UnprocessableError(f"line 1 has the column `{LABEL}` alone: add one column a token", line=1)
    return names.index(LABEL)


def _label(cell: str, line: int) -> str:
    if not (label := cell.strip()):
        raise UnprocessableError(f"line {line} has no label: name its class, or leave the row out", line=line)
    return label


def _take_tokens(cells: list[str], tokens: array[int], columns: list[str], line: int) -> int:
    """Append a row's tokens to `tokens`, padding as 0; answer how many are not padding."""
    length = len(cells)
    while length and not cells[length - 1].strip():
        length -= 1
    if not length:
        raise UnprocessableError(f"line {line} has no tokens: leave the row out", line=line)
    for column, cell in enumerate(cells[:length]):
        # isdecimal and not int() alone: "1_000" and "-1" are no tokens.
        text = cell.strip()
        if not (text.isdecimal() and len(text) < 10):
            what = "is empty, with tokens after it" if not text else f"holds {text[:40]!r}, which is no token"
            raise UnprocessableError(
                f"line {line}: the column {columns[column]!r} {what}: tokens are whole numbers from 0 to "
                f"{MAX_VOCABULARY - 1:,} (bring measured values to a few levels first)",
                line=line,
            )
        tokens.append(int(text))
    tokens.extend([0] * (len(cells) - length))
    return length


def _table(
    tokens: array[int], lengths: array[int], labels: list[str]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int32] | None]:
    table = np.array(tokens, np.int32).reshape(len(labels), -1)
    of_rows = np.array(lengths, np.int32)
    longest = int(of_rows.max())
    padded = bool((of_rows < longest).any())
    return table[:, :longest], np.array(labels), of_rows if padded else None


# --- NPZ ------------------------------------------------------------------------------------------------------------


def _from_npz(arrays: Arrays) -> LabelledRows:
    for name in arrays:
        if name not in NPZ_ARRAYS:
            raise UnprocessableError(f"the array {name!r} means nothing here: give {', '.join(NPZ_ARRAYS)}")
    for name in ("tokens", "labels"):
        if name not in arrays:
            raise UnprocessableError(f"the array {name!r} is missing: give tokens [N, T] and labels [N]")
    tokens, labels = arrays["tokens"], arrays["labels"]
    if tokens.ndim != 2 or 0 in tokens.shape or tokens.dtype.kind not in "iu":
        raise UnprocessableError(f"tokens are {tokens.dtype} of shape {list(tokens.shape)}: give whole numbers [N, T]")
    if labels.dtype.kind == "U":
        labels = np.char.strip(labels)
    if labels.shape != tokens.shape[:1]:
        raise UnprocessableError(f"labels are of shape {list(labels.shape)}: give one a row of tokens, [{len(tokens)}]")
    lengths = _lengths(arrays.get("lengths"), tokens)
    within = tokens if lengths is None else np.where(np.arange(tokens.shape[1]) < lengths[:, None], tokens, 0)
    _refuse_rows(np.any(within < 0, axis=1), "has a token below 0: tokens are numbered from 0")
    _refuse_rows(
        np.any(within >= MAX_VOCABULARY, axis=1), f"has a token above {MAX_VOCABULARY - 1:,}: number them from 0"
    )
    mask = _attention_mask(arrays.get("attention_mask"), within.shape, lengths)
    return LabelledRows(within.astype(np.int32), labels, lengths, mask)


def _lengths(lengths: NDArray[Any] | None, tokens: NDArray[Any]) -> NDArray[np.int32] | None:
    if lengths is None:
        return None
    if lengths.shape != tokens.shape[:1] or lengths.dtype.kind not in "iu":
        raise UnprocessableError(
            f"lengths are {lengths.dtype} of shape {list(lengths.shape)}: give whole numbers [{len(tokens)}]"
        )
    longest = tokens.shape[1]
    _refuse_rows((lengths < 1) | (lengths > longest), f"has a length that is not from 1 to {longest}")
    return lengths.astype(np.int32)


def _attention_mask(
    mask: NDArray[Any] | None, shape: tuple[int, ...], lengths: NDArray[np.int32] | None
) -> NDArray[np.uint8] | None:
    if mask is None:
        return None
    count, length = shape
    if mask.shape != (count, length, length) or mask.dtype.kind not in "biu":
        raise UnprocessableError(
            f"attention_mask is {mask.dtype} of shape {list(mask.shape)}: give 0 and 1 (1: may attend) of shape "
            f"[{count}, {length}, {length}]"
        )
    _refuse_rows(np.any((mask != 0) & (mask != 1), axis=(1, 2)), "has an attention_mask that is not 0 and 1 alone")
    blind = np.all(mask == 0, axis=2)
    if lengths is not None:
        blind &= np.arange(length) < lengths[:, None]
    _refuse_rows(np.any(blind, axis=1), "has a token that may attend to none: let it attend at least to itself")
    return mask.astype(np.uint8)


def _refuse_rows(wrong: NDArray[Any], what: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UnprocessableError(f"row {row} (counted from 0) {what}", row=row)
