"""How far apart two sets of logits are, and how far they may be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from workers.trial.parity import TOLERANCES, WORST_TOKEN_FACTOR, Parity, compare

REFERENCE_BTV = np.random.default_rng(0).normal(size=(2, 8, 16)).astype(np.float32)


def test_equal_logits_are_at_zero() -> None:
    assert compare(REFERENCE_BTV, REFERENCE_BTV) == Parity(0.0, 0.0)


def test_the_error_is_relative_and_of_all_tokens() -> None:
    found = compare(REFERENCE_BTV * 1.01, REFERENCE_BTV)
    assert found.error == pytest.approx(0.01, rel=1e-3)
    assert found.worst == pytest.approx(0.01, rel=1e-3)


def test_one_wrong_token_shows_in_the_worst() -> None:
    wrong = REFERENCE_BTV.copy()
    wrong[1, 5] *= -1
    found = compare(wrong, REFERENCE_BTV)
    assert found.worst == pytest.approx(2.0, rel=1e-6)
    assert found.error < 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_numbers_are_never_kept(bad: float) -> None:
    wrong = REFERENCE_BTV.copy()
    wrong[0, 0, 0] = bad
    assert not compare(wrong, REFERENCE_BTV).kept(TOLERANCES["bfloat16"])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_tolerance_is_of_the_dtype(dtype: str) -> None:
    tolerance = TOLERANCES[dtype]
    assert Parity(tolerance, tolerance).kept(tolerance)
    assert not Parity(2 * tolerance, tolerance).kept(tolerance)
    assert not Parity(tolerance, 2 * WORST_TOKEN_FACTOR * tolerance).kept(tolerance)


def test_logits_of_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match="logits are"):
        compare(REFERENCE_BTV[:1], REFERENCE_BTV)
