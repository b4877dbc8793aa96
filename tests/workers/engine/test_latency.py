"""How long is measured, over what, and what is made of the samples; with engines whose runs take what the test says."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from workers.engine import latency
from workers.engine.base import Engine, TensorSpec
from workers.engine.protocol import RequestError


class Scripted(Engine):
    """Takes one input `tokens` int32 [3, 4]; `timed_run` answers by `durations_ms` in turn."""

    runtime = "scripted"

    def __init__(self, durations_ms: list[float]) -> None:
        super().__init__()
        self.inputs = (TensorSpec("tokens", np.dtype(np.int32), (3, 4)),)
        self.durations_ms = durations_ms
        self.runs: list[np.ndarray] = []
        self.collecting: list[bool] = []
        self.spent_ms = 0.0
        self._loaded = True

    def timed_run(self, prepared: np.ndarray) -> float:
        self.runs.append(prepared)
        self.collecting.append(gc.isenabled())
        duration_ms = self.durations_ms[len(self.runs) % len(self.durations_ms)]
        self.spent_ms += duration_ms
        return duration_ms

    def _prepare(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return inputs["tokens"]

    def _unused(self, *_: Any) -> Any:
        raise AssertionError("a measurement does not need this")

    describe = _build = _footprint = _load = _run = _attach_loss = _loss = _close = _unused


Scripted.__abstractmethods__ = frozenset()

TOKENS = np.arange(12, dtype=np.int32).reshape(3, 4)
QUICK = {"warmup_seconds": 0.0, "seconds": 0.02, "min_runs": 10}


def test_a_calm_engine_is_measured_until_its_median_is_known() -> None:
    engine = Scripted([2.0])
    measured = latency.measure(engine, {"tokens": TOKENS}, {**QUICK, "seconds": 0.5})
    assert measured["environment"]["stopped_by"] == "confidence"
    assert measured["environment"]["measured_seconds"] < 0.5
    assert measured["environment"]["median_half_width"] == 0.0
    assert measured["flagged"] is False
    assert measured["latency_ms_p50"] == measured["latency_ms_p99"] == 2.0
    assert measured["runs_per_s"] == pytest.approx(500)


def test_a_noisy_engine_is_measured_for_its_seconds_and_flagged() -> None:
    engine = Scripted(list(np.linspace(1, 9, 997)))
    measured = latency.measure(engine, {"tokens": TOKENS}, {"warmup_seconds": 0, "seconds": 0.001, "min_runs": 30})
    assert measured["environment"]["stopped_by"] == "seconds"
    assert measured["flagged"] is True


def test_min_runs_are_done_however_long_they_take() -> None:
    measured = latency.measure(Scripted([1.0]), {"tokens": TOKENS}, {**QUICK, "seconds": 0.0, "min_runs": 500})
    assert measured["runs"] == 500


def test_a_measurement_goes_on_until_all_the_figures_that_matter_are_known() -> None:
    # One run in a hundred takes longer: the median is known at once, and the 99th percentile never.
    durations = [1.0] * 99 + [1.5]
    options = {"warmup_seconds": 0.0, "seconds": 5.0, "min_runs": 100}
    by_median = _measured_on_its_clock(durations, options, ("latency_ms_p50",))
    by_tail = _measured_on_its_clock(durations, options, ("latency_ms_p50", "latency_ms_p99"))
    by_time = _measured_on_its_clock(durations, options, ())
    assert by_median["environment"]["stopped_by"] == by_time["environment"]["stopped_by"] == "confidence"
    assert by_time["runs"] == by_median["runs"]
    assert by_median["environment"]["measured_seconds"] == pytest.approx(1.25, abs=0.01), "a quarter is the least"
    assert by_tail["environment"]["stopped_by"] == "seconds"
    assert by_tail["environment"]["measured_seconds"] == pytest.approx(5, abs=0.01)
    calm = _measured_on_its_clock([1.0] * 20 + [1.4], options, ("latency_ms_p50", "latency_ms_p99"), tails=0.25)
    assert calm["environment"]["stopped_by"] == "confidence"


def test_a_median_between_bursts_is_measured_for_the_whole_time() -> None:
    options = {"warmup_seconds": 0.0, "seconds": 5.0, "min_runs": 100}
    busy = _measured_on_its_clock([1.0] * 99 + [9.0], options, ("latency_ms_p50",))
    assert busy["environment"]["median_half_width"] == 0.0
    assert busy["environment"]["stopped_by"] == "seconds"


def test_a_tail_is_measured_for_as_long_as_its_engine_says() -> None:
    options = {"warmup_seconds": 0.0, "seconds": 5.0, "min_runs": 100}
    figures = ("latency_ms_p50", "latency_ms_p99")
    seconds = [
        _measured_on_its_clock([1.0], options, figures, tails=share)["environment"]["measured_seconds"]
        for share in (0.25, 1.0)
    ]
    assert seconds == [pytest.approx(1.25, abs=0.01), pytest.approx(5, abs=0.01)]


def _measured_on_its_clock(
    durations: list[float], options: dict[str, Any], figures: tuple[str, ...], tails: float = 1.0
) -> dict[str, Any]:
    """Measure an engine whose runs take the time that they say, by a clock of its own."""
    engine = Scripted(durations)
    engine.least_share_of_tails = tails
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency.time, "perf_counter", lambda: engine.spent_ms / 1000)
        return latency.measure(engine, {"tokens": TOKENS}, options, figures=figures)


def test_only_what_is_timed_has_the_device_alone() -> None:
    engine = Scripted([1.0])
    happened: list[tuple[str, int]] = []

    class Turn(latency.NoTurn):
        def __init__(self, name: str) -> None:
            self.name = name

        def __exit__(self, *exception: object) -> None:
            happened.append((f"left {self.name}", len(engine.runs)))

        def give_way(self) -> None:
            happened.append((self.name, len(engine.runs)))

    measured = latency.measure(engine, {"tokens": TOKENS}, QUICK, shared=Turn("shared"), alone=Turn("alone"))
    before = latency.INPUT_SETS
    gave_way = [place for what, place in happened if what == "shared"]
    assert gave_way == [0] * before + list(range(before)), "before each set that is laid out, and each warm-up run"
    assert happened[-3:] == [
        ("left shared", before),
        ("alone", before),
        ("left alone", measured["runs"] + measured["environment"]["warmup_runs"]),
    ]


def test_warm_up_runs_are_no_samples() -> None:
    engine = Scripted([1.0])
    measured = latency.measure(engine, {"tokens": TOKENS}, QUICK)
    assert measured["environment"]["warmup_runs"] >= latency.INPUT_SETS
    assert len(engine.runs) == measured["runs"] + measured["environment"]["warmup_runs"]


def test_one_set_of_inputs_becomes_several_that_take_turns() -> None:
    engine = Scripted([1.0])
    latency.measure(engine, {"tokens": TOKENS}, QUICK)
    turns = engine.runs[: 2 * latency.INPUT_SETS]
    assert len({id(array) for array in turns}) == latency.INPUT_SETS
    assert turns[0] is turns[latency.INPUT_SETS]
    assert all(sorted(array[:, 0]) == sorted(TOKENS[:, 0]) for array in turns)
    assert not np.array_equal(turns[0], turns[1])


def test_given_sets_are_used_as_they_are() -> None:
    engine = Scripted([1.0])
    sets = np.stack([TOKENS, TOKENS + 1, TOKENS + 2, TOKENS + 3, TOKENS + 4])
    latency.measure(engine, {"tokens": sets}, QUICK)
    assert np.array_equal(np.stack(engine.runs[:5]), sets)


def test_no_set_at_all_is_refused() -> None:
    with pytest.raises(RequestError, match="at least one"):
        latency.measure(Scripted([1.0]), {"tokens": np.empty((0, 3, 4), np.int32)}, QUICK)


def test_garbage_collection_rests_and_comes_back() -> None:
    engine = Scripted([1.0])
    latency.measure(engine, {"tokens": TOKENS}, QUICK)
    assert not any(engine.collecting)
    assert gc.isenabled()


def test_garbage_collection_comes_back_after_a_failure() -> None:
    engine = Scripted([])
    with pytest.raises(ZeroDivisionError):
        latency.measure(engine, {"tokens": TOKENS}, QUICK)
    assert gc.isenabled()


def test_statistics_are_those_of_numpy() -> None:
    samples = np.random.default_rng(0).gamma(3, 1, 1001)
    summary = latency.summarize(samples)
    assert summary["latency_ms_p50"] == pytest.approx(np.median(samples))
    assert summary["latency_ms_p90"] == pytest.approx(np.quantile(samples, 0.9))
    assert summary["latency_ms_p99"] == pytest.approx(np.quantile(samples, 0.99))
    assert summary["latency_ms_mean"] == pytest.approx(samples.mean())
    assert summary["latency_cv"] == pytest.approx(samples.std(ddof=1) / samples.mean())
    assert latency.summarize(np.array([4.0]))["latency_cv"] == 0.0


def test_at_most_ten_thousand_raw_samples_spread_over_all() -> None:
    samples = np.arange(123_456, dtype=float)
    kept = latency.thin(samples)
    assert len(kept) == 10_000
    assert (kept[0], kept[-1]) == (0, 123_455)
    assert np.all(np.diff(kept) > 0)
    assert latency.thin(samples[:9_999]) is not None
    assert len(latency.thin(samples[:9_999])) == 9_999
