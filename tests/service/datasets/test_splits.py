"""How examples are cut: shares kept class by class, copies together, the same whatever the order of the file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.datasets.splits import Fractions, split_examples
from service.errors import UnprocessableError

HALVES = Fractions(validation=0.25, test=0.25)


def keys_of(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


def test_every_class_is_cut_in_the_same_shares() -> None:
    strata = np.repeat([0, 1, 2], [400, 200, 40])
    splits = split_examples(strata, keys_of(640), HALVES)
    for split, share in (("training", 0.5), ("validation", 0.25), ("test", 0.25)):
        counts = np.bincount(strata[splits[split]])
        assert np.abs(counts - share * np.array([400, 200, 40])).max() <= 1, split


def test_rare_classes_are_not_all_lost_to_training() -> None:
    strata = np.arange(300) // 3
    splits = split_examples(strata, keys_of(300), Fractions(validation=0.1))
    assert len(splits["validation"]) == pytest.approx(30, abs=3)
    assert set(strata[splits["training"]]) == set(range(100)), "none is left without an example to train on"


@given(st.lists(st.integers(0, 30), min_size=80, max_size=200), st.randoms())
@settings(max_examples=50, deadline=None)
def test_what_has_the_same_key_stays_together_in_any_order(numbers: list[int], random) -> None:
    keys = [str(number).encode() for number in numbers]
    strata = np.array([number % 3 for number in numbers])
    try:
        splits = split_examples(strata, keys, HALVES)
    except UnprocessableError:
        return
    where = {split: {keys[index] for index in indices} for split, indices in splits.items()}
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(keys)))
    assert not where["training"] & where["validation"]
    assert not where["training"] & where["test"]
    assert not where["validation"] & where["test"]

    order = list(range(len(keys)))
    random.shuffle(order)
    again = split_examples(strata[order], [keys[index] for index in order], HALVES)
    assert {split: {keys[order[index]] for index in indices} for split, indices in again.items()} == where


def test_too_few_examples_are_refused_with_the_split() -> None:
    with pytest.raises(UnprocessableError, match="of its 20 examples the validation split has 2"):
        split_examples(np.zeros(20, int), keys_of(20), Fractions(validation=0.1))
