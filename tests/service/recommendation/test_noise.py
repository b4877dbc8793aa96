from __future__ import annotations

import numpy as np
import pytest

from service.recommendation.noise import Blocks, difference_error, pooled_spread, sampling_error


def blocks(losses, weight=10.0) -> Blocks:
    return Blocks(tuple(loss * weight for loss in losses), (weight,) * len(losses))


def test_the_sampling_error_is_that_of_a_mean_of_blocks():
    losses = np.random.default_rng(0).normal(2.0, 0.3, 40)
    assert sampling_error(blocks(losses)) == pytest.approx(losses.std(ddof=1) / np.sqrt(40))
    assert blocks(losses).mean == pytest.approx(losses.mean())


def test_the_interval_of_two_errors_holds_the_true_mean_about_as_often_as_it_should():
    source = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        found = blocks(source.normal(2.0, 0.3, 30))
        held += abs(found.mean - 2.0) <= 1.96 * sampling_error(found)
    assert 0.91 < held / 400 < 0.98


def test_models_of_the_same_blocks_are_compared_block_by_block():
    """What makes a block hard makes it hard for both: their difference is far more certain than either."""
    hardness = np.random.default_rng(2).normal(2.0, 0.5, 50)
    one, other = blocks(hardness), blocks(hardness + 0.01)
    assert difference_error(one, other) == pytest.approx(0.0, abs=1e-12)
    unlike = Blocks(other.loss_sums[:-1], other.weight_sums[:-1])
    assert difference_error(one, unlike) > 0.05


def test_what_is_too_little_or_no_measurement_gives_no_error():
    assert sampling_error(None) is None
    assert sampling_error(blocks([1.0])) is None
    assert difference_error(blocks([1.0, 2.0]), None) is None
    for data in (None, {}, {"loss_sums": [1.0]}, {"loss_sums": [1.0], "weight_sums": [0.0]}, {"loss_sums": "12"}):
        assert Blocks.read(data) is None
    assert Blocks.read({"loss_sums": [1, 2.0], "weight_sums": [1, 1]}) == Blocks((1.0, 2.0), (1.0, 1.0))


def test_the_spread_is_pooled_over_configurations():
    assert pooled_spread([[1.0, 1.2], [5.0, 5.4]]) == pytest.approx(np.sqrt((0.02 + 0.08) / 2))
    assert pooled_spread([[1.0], []]) is None
