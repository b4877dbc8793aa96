"""Intervals by ranks, against every arrangement of small samples."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from service.assertions.rank_intervals import one_sample, rank_sum_counts, signed_rank_counts, two_samples

EACH = (0.05, 0.05)


@pytest.mark.parametrize("count", [1, 4, 6])
def test_the_signed_rank_distribution_is_that_of_all_signs(count: int) -> None:
    sums = [sum(rank for rank, positive in enumerate(signs, 1) if positive) for signs in product((0, 1), repeat=count)]
    assert signed_rank_counts(count) == pytest.approx(np.bincount(sums) / 2**count)


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 5), (4, 3)])
def test_the_rank_sum_distribution_is_that_of_all_orders(first: int, second: int) -> None:
    places = range(first + second)
    wins = [sum(place - index for index, place in enumerate(chosen)) for chosen in combinations(places, first)]
    assert rank_sum_counts(first, second) == pytest.approx(np.bincount(wins) / len(wins))


def test_bounds_need_enough_builds() -> None:
    few = one_sample(np.arange(4.0), EACH)
    assert (few.estimate, few.low, few.high) == (1.5, None, None)
    strict = one_sample(np.arange(5.0), (0.005, 0.05))
    assert (strict.low, strict.high) == (None, 4.0)
    # The known critical value of five ranks at 5 % is 0, and of five against five 4.
    assert one_sample(np.arange(5.0), EACH).low == 0.0
    pairs = np.arange(5.0)[:, None] - np.arange(5.0)[None, :]
    found = two_samples(pairs, EACH)
    assert (found.estimate, found.low, found.high) == (0.0, np.sort(pairs, axis=None)[4], np.sort(pairs, axis=None)[-5])


@pytest.mark.parametrize("value", [-1e308, np.inf])
def test_the_largest_numbers_stay_numbers(value: float) -> None:
    for found in (one_sample(np.full(8, value), EACH), two_samples(np.full((8, 8), value), EACH)):
        assert all(bound is not None and np.isfinite(bound) for bound in (found.estimate, found.low, found.high))


def test_an_outlier_moves_no_bound_far() -> None:
    values = np.array([1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 9.0])
    found = one_sample(values, EACH)
    assert found.low is not None
    assert 1.0 <= found.low < found.estimate < 1.1
