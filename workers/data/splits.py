"""A dataset's splits as a model reads them: windows of a text, labelled rows, pairs of source and target. Numpy alone.

Legend: B examples, T tokens, S source tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layers.dataset_facts import DatasetFacts
from layers.declarations.inference.parameters import InferenceConfig
from layers.declarations.training import TrainingConfig
from workers.data.batches import Batch, Batches, DataError
from workers.data.mapped_arrays import map_arrays

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Form:
    """In which form a model takes its examples: the names of its inputs, how many tokens (and source tokens) they have,
    and the tokens with a meaning of their own (`pad_id`, `start_id`, `end_id`), as the dataset's facts have them."""

    inputs: Collection[str]
    sequence_length: int
    source_length: int
    specials: Mapping[str, int]

    @staticmethod
    def of(inputs: Collection[str], section: TrainingConfig | InferenceConfig, specials: Mapping[str, int]) -> Form:
        """The form that a training or an inference asks for."""
        length = section.sequence_length
        return Form(inputs, length, section.source_length or length, specials)


def specials_of(facts: DatasetFacts) -> dict[str, int]:
    """The tokens with a meaning of their own that a dataset's facts name."""
    found = {"pad_id": facts.get("pad_id"), "start_id": facts.get("start_id"), "end_id": facts.get("end_id")}
    return {name: token for name, token in found.items() if token is not None}


class Split(ABC):
    """The examples of one split, in one form."""

    @abstractmethod
    def __len__(self) -> int:
        """How many examples there are."""

    @abstractmethod
    def rows(self, chosen: Indices) -> Batch:
        """The examples at these places."""

    def evaluation(self, batch_size: int, at_most: int | None = None) -> Batches:
        """Every example once, in order; with `at_most`, that many spread evenly over the split: a fixed, unbiased
        sample of it."""
        count = len(self)
        chosen = np.arange(count)
        if at_most is not None and at_most < count:
            chosen = np.arange(at_most) * count // at_most
        return self.rows(chosen).in_batches(batch_size)

    def training(self, generator: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """Batches without end: pass after pass over the examples, each in another order."""
        waiting = np.empty(0, np.intp)
        while True:
            while len(waiting) < batch_size:
                waiting = np.concatenate([waiting, generator.permutation(len(self))])
            yield self.rows(waiting[:batch_size])
            waiting = waiting[batch_size:]


class TextSplit(Split):
    """A text as contiguous windows, each position with its next token as the target. Every token but the first is a
    target once; what is beyond the last has weight 0."""

    def __init__(self, tokens: NDArray[Any], length: int) -> None:
        if tokens.ndim != 1 or tokens.dtype.kind not in "ui":
            raise DataError(f"tokens are {tokens.dtype} of shape {tokens.shape}, not a row of integers")
        if len(tokens) < 2:
            raise DataError(f"a split of {len(tokens)} tokens has no next token to predict")
        self._tokens = tokens
        self._length = length

    def __len__(self) -> int:
        return -(-(len(self._tokens) - 1) // self._length)

    def rows(self, chosen: Indices) -> Batch:
        places = chosen[:, None] * self._length + np.arange(self._length + 1)
        counted = places[:, 1:] < len(self._tokens)
        windows = np.where(places < len(self._tokens), self._tokens[np.minimum(places, len(self._tokens) - 1)], 0)
        return _windows(windows, counted)

    def evaluation(self, batch_size: int, at_most: int | None = None) -> Batches:
        """As for any split; a sample is of full windows."""
        full = (len(self._tokens) - 1) // self._length
        if at_most is None or at_most >= full:
            return super().evaluation(batch_size)
        return self.rows(np.arange(at_most) * full // at_most).in_batches(batch_size)

    def training(self, generator: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """Windows at random places."""
        if len(self._tokens) <= self._length:
            raise DataError(f"{len(self._tokens)} training tokens are too few for sequences of {self._length}")
        return self._random_windows(generator, batch_size)

    def _random_windows(self, generator: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        while True:
            starts = generator.integers(0, len(self._tokens) - self._length, batch_size)
            windows = self._tokens[starts[:, None] + np.arange(self._length + 1)]
            yield _windows(windows, np.ones((batch_size, self._length), bool))


class LabelledSplit(Split):
    """Rows of tokens, each with its class as the one target."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], form: Form) -> None:
        self._tokens, self._labels = arrays["tokens"], arrays["labels"]
        length = self._tokens.shape[1]
        if length != form.sequence_length:
            raise DataError(f"the rows have {length} tokens, the model takes {form.sequence_length}")
        self._lengths = arrays.get("lengths")
        self._mask = arrays.get("attention_mask")
        self._inputs = form.inputs
        if "attention_mask" in form.inputs and self._mask is None:
            raise DataError("attention_mask_type custom_mask needs the array `attention_mask`, which the data lacks")

    def __len__(self) -> int:
        return len(self._labels)

    def rows(self, chosen: Indices) -> Batch:
        inputs = {"tokens": self._tokens[chosen].astype(np.int32)}
        if "token_mask" in self._inputs:
            inputs["token_mask"] = self._token_mask(chosen)
        if "attention_mask" in self._inputs:
            assert self._mask is not None
            inputs["attention_mask"] = self._attention_mask(self._mask[chosen].astype(np.int32), chosen)
        return Batch(inputs, self._labels[chosen].astype(np.int32), np.ones(len(chosen), np.float32))

    def _token_mask(self, chosen: Indices) -> NDArray[np.int32]:
        shape = (len(chosen), self._tokens.shape[1])
        return np.ones(shape, np.int32) if self._lengths is None else _mask(self._lengths[chosen], shape[1])

    def _attention_mask(self, mask_BTT: NDArray[np.int32], chosen: Indices) -> NDArray[np.int32]:
        """The data's mask, with no token attending to padding; padding attends to the first token, not to nothing."""
        if self._lengths is None:
            return mask_BTT
        present_BT = self._token_mask(chosen)
        mask_BTT = mask_BTT * present_BT[:, None, :]
        mask_BTT[..., 0] |= mask_BTT.sum(-1) == 0
        return mask_BTT


class PairsSplit(Split):
    """Sources with their targets. A decoder reads the start and the target; it is to say the target and its end."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], form: Form) -> None:
        self._source = _Ragged(arrays["source"], arrays["source_lengths"])
        self._target = _Ragged(arrays["target"], arrays["target_lengths"])
        self._form = form
        for side, ragged, length in (
            ("source", self._source, form.source_length),
            ("target with its end", self._target.with_one_more(), form.sequence_length),
        ):
            if ragged.longest > length:
                raise DataError(f"a {side} has {ragged.longest} tokens, the model takes {length}")

    def __len__(self) -> int:
        return len(self._source.lengths)

    def rows(self, chosen: Indices) -> Batch:
        form, length = self._form, self._form.sequence_length
        pad, start, end = (form.specials[name] for name in ("pad_id", "start_id", "end_id"))
        targets_BT = self._target.padded(chosen, length, pad)
        lengths = self._target.lengths[chosen]
        tokens_BT = np.empty_like(targets_BT)
        tokens_BT[:, 0] = start
        tokens_BT[:, 1:] = targets_BT[:, :-1]
        targets_BT[np.arange(len(chosen)), lengths] = end
        inputs = {
            "source": self._source.padded(chosen, form.source_length, pad),
            "source_mask": _mask(self._source.lengths[chosen], form.source_length),
            "tokens": tokens_BT,
        }
        return Batch(inputs, targets_BT, _mask(lengths + 1, length).astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Ragged:
    """Rows of different lengths, one behind the other."""

    tokens: NDArray[Any]
    lengths: NDArray[Any]

    @property
    def longest(self) -> int:
        return int(self.lengths.max())

    def with_one_more(self) -> _Ragged:
        return _Ragged(self.tokens, self.lengths + 1)

    def padded(self, chosen: Indices, width: int, pad: int) -> NDArray[np.int32]:
        starts = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        places = starts[chosen, None] + np.arange(width)
        present = _mask(self.lengths[chosen], width) == 1
        rows = self.tokens[np.minimum(places, len(self.tokens) - 1)].astype(np.int32)
        return np.where(present, rows, np.int32(pad))


def load_split(path: Path, task: str, form: Form) -> Split:
    """The split in an NPZ file of a dataset for `task`, mapped from it. Raises DataError if its arrays are not what
    the task has."""
    arrays = map_arrays(path)
    try:
        match task:
            case "causal_lm":
                return TextSplit(arrays["tokens"], form.sequence_length)
            case "classification":
                return LabelledSplit(arrays, form)
            case "seq2seq":
                return PairsSplit(arrays, form)
            case _:
                raise DataError(f"{task} has no data")
    except KeyError as missing:
        raise DataError(f"{path.name} lacks the array {missing}, which {task} needs") from None


@dataclass(frozen=True, slots=True)
class TrialData:
    """The splits that a trial trains on and is judged by, in the form in which its engine takes them."""

    task: str
    paths: Mapping[str, Path]
    form: Form

    def training(self) -> Split:
        return load_split(self.paths["training"], self.task, self.form)

    def validation(self) -> Split:
        return load_split(self.paths["validation"], self.task, self.form)


def _windows(windows: NDArray[Any], counted: NDArray[np.bool_]) -> Batch:
    windows = windows.astype(np.int32)
    inputs = {"tokens": np.ascontiguousarray(windows[:, :-1])}
    return Batch(inputs, np.ascontiguousarray(windows[:, 1:]), counted.astype(np.float32))


def _mask(lengths: NDArray[Any], width: int) -> NDArray[np.int32]:
    """1 for a token, 0 for padding: int32 [B, width]."""
    return (np.arange(width) < lengths[:, None]).astype(np.int32)
