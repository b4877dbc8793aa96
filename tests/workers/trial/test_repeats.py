"""When a latency is measured in a further process, and what several say together."""

from __future__ import annotations

import numpy as np
import pytest

from layers.expressions.constraints import parse_constraint
from workers.engine.confidence import KNOWN_WITHIN, MOST_PROCESSES, Interval, interval
from workers.trial.measuring.repeats import MEDIANS, ProcessFigures, Repeats, uncertain


def process(median_ms: float = 1.0, cv: float = 0.002, seed: int = 0, runs: int = 2000) -> ProcessFigures:
    samples = median_ms * (1 + cv * np.abs(np.random.default_rng(seed).normal(size=runs)))
    found = {figure: interval(samples, figure) for figure in KNOWN_WITHIN}
    metrics = {name: each.value for name, each in found.items()}
    return ProcessFigures(metrics, found, dict.fromkeys(MEDIANS, float(samples.std() / samples.mean())))


def repeated(limit: str, *processes: ProcessFigures, shape: str | None = None) -> tuple[Repeats, int]:
    """All of the processes that are wanted, and how many."""
    repeats = Repeats([parse_constraint(limit)], {}, processes[0], shape)
    for count, each in enumerate(processes[1:], start=1):
        if not repeats.are_wanted():
            return repeats, count
        repeats.add(each)
    return repeats, len(processes)


def verdict(repeats: Repeats, limit: str) -> str | None:
    values = {name: each.interval.value for name, each in repeats.figures.items()}
    return parse_constraint(limit).verdict(values, uncertain(repeats.figures))


def test_what_is_far_from_its_limit_is_measured_once() -> None:
    for limit, judged in (("latency_ms_p50 <= 1.05", "kept"), ("latency_ms_p50 <= 0.95", "broken")):
        repeats, processes = repeated(limit, process(), process(seed=1))
        assert (processes, verdict(repeats, limit)) == (1, judged)


def test_what_is_near_its_limit_is_measured_in_further_processes_and_judged_by_their_mean() -> None:
    limit = "latency_ms_p50 <= 1.004"
    repeats, processes = repeated(limit, *(process(seed=seed) for seed in range(MOST_PROCESSES)))
    assert 1 < processes <= MOST_PROCESSES
    assert verdict(repeats, limit) == "kept"
    assert repeats.figures["latency_ms_p50"].is_known


def test_a_noisy_measurement_near_its_limit_is_repeated_if_calm_ones_would_decide_it() -> None:
    def found(median: float, low: float, high: float) -> ProcessFigures:
        interval = Interval(median, low, high)
        return ProcessFigures({"decode_ms_per_token_p50": median}, {"decode_ms_per_token_p50": interval}, {})

    noisy, calm = found(0.05815, 0.04891, 0.06738), found(0.0579, 0.0577, 0.0581)
    limit = "decode_ms_per_token_p50 <= 0.061"
    repeats, processes = repeated(limit, noisy, *[calm] * 4)
    assert (processes > 1, verdict(repeats, limit)) == (True, "kept")
    limit = "decode_ms_per_token_p50 <= 0.06"
    repeats, processes = repeated(limit, noisy, *[calm] * 4)
    assert (processes, verdict(repeats, limit)) == (1, "undecided"), "three calm ones would leave the limit inside"


def test_processes_that_differ_by_more_than_the_distance_to_the_limit_judge_nothing() -> None:
    limit = "latency_ms_p50 <= 1.006"
    differing = [process(median) for median in (1.0, 1.03, 0.99, 1.02)]
    repeats, processes = repeated(limit, *differing)
    assert processes == 2, "two more would not decide it either"
    assert verdict(repeats, limit) == "undecided"
    assert repeats.noise["latency_ms_p50"]["spread"] == pytest.approx(0.021, abs=0.002)
    assert not repeats.noise["latency_ms_p50"]["known"]


def test_what_was_measured_before_the_training_says_how_far_processes_differ() -> None:
    limit = "latency_ms_p50 <= 1.05"
    found = Repeats([parse_constraint(limit)], {"latency_ms_p50": 1.3}, process(), None)
    assert found.noise["latency_ms_p50"]["spread"] == pytest.approx(0.21, abs=0.01)
    assert found.noise["latency_ms_p50"]["processes"] == 1
    assert (verdict(found, limit), found.metrics["latency_ms_p50"]) == (
        "undecided",
        process().metrics["latency_ms_p50"],
    )
    calm = Repeats([parse_constraint(limit)], {"latency_ms_p50": 1.001}, process(), None)
    assert verdict(calm, limit) == "kept"


def test_medians_that_differ_between_processes_widen_the_tails_above_them() -> None:
    """The tail of each process is the same."""
    processes = [
        ProcessFigures(
            {"latency_ms_p50": median, "latency_ms_p99": 1.1},
            {"latency_ms_p50": Interval(median, median, median), "latency_ms_p99": Interval(1.1, 1.099, 1.101)},
            {},
        )
        for median in (0.9, 1.09)
    ]
    limit = "latency_ms_p99 <= 1.125"
    repeats = Repeats([parse_constraint(limit)], {}, processes[0], None)
    repeats.add(processes[1])
    found = repeats.figures
    p50, p99 = found["latency_ms_p50"], found["latency_ms_p99"]
    assert p50.interval.high == p99.interval.high > 1.125
    assert (p99.interval.value, p99.is_known, verdict(repeats, limit)) == (pytest.approx(1.1), False, "undecided")


def test_a_tail_that_the_machine_makes_is_not_the_engines() -> None:
    noisy = [process(cv=1.5, seed=seed) for seed in range(4)]
    limit = "latency_ms_p99 <= 3"
    assert noisy[0].intervals["latency_ms_p99"].low > 3, "clearly slower, in this process"
    repeats, processes = repeated(limit, *noisy)
    assert (processes, verdict(repeats, limit)) == (1, "undecided"), "further processes would not change it"
    assert verdict(repeats, "latency_ms_p99 <= 1.5") == "broken", "the median breaks it"


def test_a_tail_that_the_machine_makes_begins_where_its_median_does() -> None:
    """Two processes with medians of 1.1 whose tails differ: that they may differ as much downwards is no reason."""
    processes = [
        ProcessFigures(
            {"latency_ms_p50": 1.106, "latency_ms_p90": tail},
            {"latency_ms_p50": Interval(1.106, 1.09, 1.4), "latency_ms_p90": Interval(tail, 1.2, 7.0)},
            dict.fromkeys(MEDIANS, 0.33),
        )
        for tail in (1.3, 6.0)
    ]
    for number in (1, 2):
        repeats = Repeats([], {}, processes[0], None)
        if number == 2:
            repeats.add(processes[1])
        found = repeats.figures
        p50, p90 = (found[f"latency_ms_p{share}"].interval for share in (50, 90))
        assert 1.0 < p50.low == p90.low < 1.106 < p90.high
        assert verdict(repeats, "latency_ms_p90 <= 1.0") == "broken", "the median breaks it"


def test_a_throughput_that_the_machine_lowers_ends_at_that_of_the_median() -> None:
    """8 sequences take 1 ms, but for what other programs do: 2 ms on average."""
    intervals = {"latency_ms_p50": Interval(1.0, 0.99, 1.1), "throughput_per_s": Interval(4000.0, 3800.0, 4200.0)}
    metrics = {"latency_ms_p50": 1.0, "latency_ms_mean": 2.0, "throughput_per_s": 4000.0}
    limit = "throughput_per_s >= 6000"
    noisy = Repeats([], {}, ProcessFigures(metrics, intervals, dict.fromkeys(MEDIANS, 0.5)), None)
    found = noisy.figures["throughput_per_s"].interval
    assert found.high == pytest.approx(8000 / noisy.figures["latency_ms_p50"].interval.low)
    assert found.low < 3801
    assert verdict(noisy, limit) == "undecided"
    assert verdict(noisy, "throughput_per_s >= 9000") == "broken", "the median breaks it"
    calm = Repeats([], {}, ProcessFigures(metrics, intervals, dict.fromkeys(MEDIANS, 0.05)), None)
    assert verdict(calm, limit) == "broken"


def test_a_mean_below_the_median_of_slow_runs_keeps_its_own_interval() -> None:
    intervals = {
        "latency_ms_p50": Interval(1.3, 1.29, 1.31),
        "latency_ms_mean": Interval(1.16, 1.1, 1.22),
        "throughput_per_s": Interval(862.0, 820.0, 909.0),
    }
    metrics = {name: each.value for name, each in intervals.items()}
    mostly_slow = Repeats([], {}, ProcessFigures(metrics, intervals, dict.fromkeys(MEDIANS, 0.13)), None)
    figures = mostly_slow.figures
    assert figures["latency_ms_mean"].interval.low <= 1.1
    assert figures["throughput_per_s"].interval.high >= 909.0


def test_a_burst_in_one_process_is_outvoted_by_calm_ones() -> None:
    limit = "latency_ms_p99 <= 2.2"
    repeats, processes = repeated(limit, process(cv=0.5), *(process(seed=seed) for seed in range(1, 4)))
    assert processes > 1
    assert verdict(repeats, limit) == "kept"


def test_figures_at_a_shape_are_judged_by_its_constraints_alone() -> None:
    at_chat = Repeats([parse_constraint("latency_ms_p50@chat <= 1.003")], {}, process(), "chat")
    at_batch = Repeats([parse_constraint("latency_ms_p50@chat <= 1.003")], {}, process(), "batch")
    assert at_chat.are_wanted()
    assert not at_batch.are_wanted()
    assert set(at_chat.noise) == {f"{name}@chat" for name in KNOWN_WITHIN}
