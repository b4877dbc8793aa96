"""How certain a latency's figures are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from workers.engine.confidence import KNOWN_WITHIN, MEAN, SHARES, are_known, half_width

TRUE = {"latency_ms_p50": np.log(2), "latency_ms_p90": np.log(10), "latency_ms_p99": np.log(100), MEAN: 1.0}
"""Of an exponential distribution of mean 1."""


@pytest.mark.parametrize("figure", KNOWN_WITHIN)
def test_an_interval_holds_its_figure_as_often_as_it_says(figure: str) -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        samples = random.exponential(1, 2000)
        width = half_width(samples, figure)
        assert width is not None
        found = samples.mean() if figure == MEAN else np.quantile(samples, SHARES[figure])
        held += abs(found - TRUE[figure]) <= 1.3 * width * found
    assert held >= 0.93 * 400


@pytest.mark.parametrize("figure", KNOWN_WITHIN)
def test_an_interval_narrows_with_more_samples(figure: str) -> None:
    random = np.random.default_rng(0)
    widths = [half_width(random.normal(10, 1, count), figure) for count in (1_000, 10_000, 100_000)]
    assert widths[0] > widths[1] > widths[2] > 0  # type: ignore[operator]


def test_few_samples_say_nothing_of_a_tail() -> None:
    alike = np.ones(300)
    assert half_width(alike, "latency_ms_p50") == half_width(alike, MEAN) == 0.0
    assert half_width(alike, "latency_ms_p99") is None
    assert half_width(np.ones(5), "latency_ms_p50") is None
    assert half_width(np.ones(1), MEAN) is None


def test_figures_are_known_when_all_of_them_are() -> None:
    samples = [1.0] * 300
    assert are_known(samples, ())
    assert are_known(samples, ("latency_ms_p50", MEAN))
    assert not are_known(samples, ("latency_ms_p50", "latency_ms_p99"))
    assert are_known([1.0] * 1000, tuple(KNOWN_WITHIN))
