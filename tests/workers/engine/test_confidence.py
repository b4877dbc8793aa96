"""How certain a latency's figures are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from workers.engine.confidence import (
    KNOWN_WITHIN,
    MEAN,
    SHARES,
    Interval,
    are_known,
    half_width,
    interval,
    intervals,
    pooled,
)

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


def test_a_machine_that_changes_its_state_is_not_known_however_long_it_is_measured() -> None:
    """Two states, 0.09 and 0.16 ms, each for a while: the next process may find either."""
    random = np.random.default_rng(0)
    for runs in (2_000, 20_000, 200_000):
        states = np.repeat(random.permutation([0.09] * 9 + [0.16] * 11), runs // 20)
        samples = states * np.exp(0.01 * random.standard_normal(len(states)))
        found = interval(samples, "latency_ms_p50")
        assert found.low < 0.1 < 0.16 < found.high < 0.17
        assert not are_known(samples, ("latency_ms_p50",))
        mean = interval(samples, MEAN)
        assert mean.low < 0.11 < 0.15 < mean.high


def test_no_interval_ends_above_that_of_a_higher_percentile() -> None:
    """A state that a twentieth of the runs were in, one after the other, widens the interval of the 90th percentile
    alone."""
    samples = np.repeat([0.09] * 10 + [0.16] + [0.09] * 9, 120) * np.exp(
        0.01 * np.random.default_rng(0).normal(size=2400)
    )
    found = intervals(samples)
    p50, p90, p99 = (found[figure] for figure in SHARES)
    assert interval(samples, "latency_ms_p99").high < p90.high, "by itself"
    assert p50.high < p90.high <= p99.high
    assert p50.low <= p90.low <= p99.low
    assert [found[figure].value for figure in found] == [interval(samples, figure).value for figure in KNOWN_WITHIN]


def test_slow_runs_let_no_figure_be_less_than_the_fastest() -> None:
    samples = np.where(np.arange(600) // 20 == 29, 200.0, 1.0)
    mean = interval(samples, MEAN)
    assert (mean.low, mean.high > 2 * mean.value) == (1.0, True)
    short = interval(np.asarray([1.0, 1.0, 1.0, 1.0, 9.0]), "latency_ms_p50")
    assert 0 < short.low < 1 < 9 < short.high


def test_processes_that_differ_much_do_not_let_a_figure_be_nothing() -> None:
    found = pooled([Interval(value, 0.99 * value, 1.01 * value) for value in (1.0, 6.0)], 0.01).interval
    assert found.high > 6
    assert found.low == 0.99, "no lower than the lowest"


def test_what_may_be_slower_does_not_explain_a_process_that_is_faster() -> None:
    """The first may be slower, the second is known: the next may find 0.4 again."""
    found = pooled([Interval(0.484, 0.474, 3.88), Interval(0.4, 0.399, 0.401)], 0.005)
    assert found.interval.low < 0.4
    explained = pooled([Interval(0.484, 0.474, 3.88), Interval(0.6, 0.599, 0.601)], 0.005)
    assert explained.interval.low > 0.5, "the first may have been 0.6"


def test_a_process_that_disagrees_with_an_earlier_one_is_known_less_well() -> None:
    found = interval(np.linspace(0.0999, 0.1001, 1000), "latency_ms_p50")
    alone, alike, unlike = (pooled([found], 0.005, earlier) for earlier in (None, 0.1, 0.13))
    assert alike.interval.half_width <= alone.interval.half_width < 0.01
    assert unlike.interval.half_width > 0.1
    assert (unlike.interval.value, unlike.processes) == (found.value, 1)
    assert unlike.spread == pytest.approx(0.21, abs=0.01)
