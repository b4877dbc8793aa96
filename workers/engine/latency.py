"""Latency: the same loop for every runtime, device and model.

Warm up for a given time while others may use the device, then take the device alone and run until both `seconds` and
`min_runs` are reached. The loop ends earlier if the figures that matter are known well enough (confidence.py),
`min_runs` runs are done and a quarter of `seconds` has passed. If runs differ a lot (`confidence.MACHINE_CV`), it takes
the whole time: a busy machine changes too slowly for a part to show it. The engine times each run (`Engine.timed_run`):
device time, without transfers.
"""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from . import confidence, machine
from .base import Engine, RowWrite
from .protocol import invalid
from .verbs import EnqueuedPercentiles, MeasureAnswer, Percentiles

INPUT_SETS = 4
"""Sets of buffers that runs rotate through, so that no run finds its input where the previous run left it."""

DEFAULT_FIGURES = ("latency_ms_p50",)
"""Figures that have to be known if the caller names none."""

LEAST_SHARE = 0.25
"""Share of `seconds` before which no measurement stops: neighbouring runs are alike, so a short calm says little about
the rest. For tails each engine has its own share (`Engine.least_share_of_tails`)."""

SETTLE_SECONDS = 0.02
"""Second warm-up, alone on the device: it replaces what others left in the caches."""

ENQUEUED_SHARE = 0.1
"""Share of `seconds` for the runs without the captured graph, which also have the device alone."""

FLAGGED_CV = 0.025
"""Coefficient of variation above which a measurement is flagged as noisy."""

MAX_SAMPLES = 10_000
"""The most raw samples in an answer; statistics cover all runs."""


class DeviceTurn(Protocol):
    """A turn on the device, as a context. Within it, `give_way` lets whoever waits for the device go first."""

    def __enter__(self) -> DeviceTurn: ...

    def __exit__(self, *exception: object) -> None: ...

    def give_way(self) -> object: ...


class NoTurn:
    """The turn on a device that nobody else uses."""

    def __enter__(self) -> NoTurn:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def give_way(self) -> None: ...


@dataclass(frozen=True)
class Options:
    """How long to measure."""

    warmup_seconds: float = 0.2
    seconds: float = 3.0
    min_runs: int = 100

    @classmethod
    def checked(cls, options: Mapping[str, object]) -> Options:
        """Read the options of a request. Raises RequestError("invalid")."""
        known = {option.name for option in fields(cls)}
        if unknown := sorted(set(options) - known):
            raise invalid(f"measure has no option {', '.join(unknown)}; it has: {', '.join(sorted(known))}")
        given: dict[str, float] = {}
        for name, value in options.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 3600:
                raise invalid(f"{name} is {value!r}; it is a number from 0 to 3600")
            given[name] = value
        chosen = replace(cls(), **given)
        if chosen.min_runs != int(chosen.min_runs) or chosen.min_runs < 1:
            raise invalid(f"min_runs is {chosen.min_runs!r}; it is an integer of at least 1")
        return replace(chosen, min_runs=int(chosen.min_runs))


def measure(
    engine: Engine,
    inputs: Mapping[str, np.ndarray],
    options: Mapping[str, object],
    *,
    figures: Collection[str] = DEFAULT_FIGURES,
    shared: DeviceTurn | None = None,
    alone: DeviceTurn | None = None,
    writes: Sequence[RowWrite] = (),
) -> MeasureAnswer:
    """Measure the loaded engine on the given inputs.

    `inputs`: arrays by name, each in the engine's shape, or with one more axis in front that holds several sets, the
    same number for every name. A single set is rotated along its first axis (the batch) into INPUT_SETS sets.
    `figures`: those that have to be known (confidence.KNOWN_WITHIN names them). If empty, a quarter of the time is
    enough.
    `shared`: a turn on the device with others, for preparing inputs and the first warm-up. None if nobody else uses it.
    `alone`: a turn on the device with nobody else, for the second warm-up and everything that is timed.
    `writes`: what each run writes into its own inputs (`Engine.keep_rows`).

    A measurement with latency_cv > FLAGGED_CV is repeated up to `Engine.repeats_when_noisy` times; one that stays noisy
    is flagged. If the engine launches runs as a captured graph, some runs without the graph are measured as well.
    """
    clock = _Laps()
    chosen = Options.checked(options)
    engine.require_loaded()
    sets = input_sets(engine, inputs)
    load_before = machine.load_average()
    with _no_garbage_collection():
        with shared or NoTurn() as turn:
            prepared = [_prepared(engine, one, writes, turn) for one in sets]
            buffers = itertools.cycle(prepared)
            warmup_runs = _warm_up(engine, buffers, chosen.warmup_seconds, turn)
        with alone or NoTurn() as turn:
            turn.give_way()
            if shared is not None:
                clock.lap()
            state_before = engine.device_state()
            warmup_runs += _warm_up(engine, buffers, min(SETTLE_SECONDS, chosen.warmup_seconds), NoTurn())
            switches = machine.involuntary_switches()
            warmed_up_seconds = clock.lap()
            least_share = engine.least_share_of_tails if confidence.TAILS & set(figures) else LEAST_SHARE
            take_samples = partial(sample, lambda: engine.timed_run(next(buffers)), chosen, figures, least_share)
            measurements = 1
            samples_ms, stopped_by = take_samples()
            while measurements <= engine.repeats_when_noisy and variation(samples_ms) > FLAGGED_CV:
                measurements += 1
                samples_ms, stopped_by = take_samples()
            seconds = clock.lap()
            switches = machine.involuntary_switches() - switches
            state_after = engine.device_state()
            enqueued = _enqueued(engine, buffers, chosen)
            enqueued_seconds = clock.lap()
    summary = summarize(samples_ms)
    return {
        **summary,
        **enqueued,
        "flagged": summary["latency_cv"] > FLAGGED_CV,
        "runs": len(samples_ms),
        "intervals": {figure: [found.low, found.high] for figure, found in confidence.intervals(samples_ms).items()},
        "samples_ms": thin(samples_ms).tolist(),
        "environment": {
            **machine.facts(),
            **engine.environment(),
            "load_average_before": load_before,
            "load_average_after": machine.load_average(),
            "involuntary_switches": switches,
            "warmup_seconds": chosen.warmup_seconds,
            "warmup_runs": warmup_runs,
            "measured_seconds": seconds,
            "alone_seconds": {"warm_up": warmed_up_seconds, "timed": seconds, "plain_enqueues": enqueued_seconds},
            "stopped_by": stopped_by,
            "measurements": measurements,
            "device_before": state_before,
            "device_after": state_after,
            "figures": sorted(figures),
            "median_half_width": confidence.half_width(samples_ms, "latency_ms_p50"),
            "input_sets": len(prepared),
        },
    }


class _Laps:
    """A stopwatch."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap, or since the start."""
        before, self._at = self._at, time.perf_counter()
        return self._at - before


def input_sets(engine: Engine, inputs: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The sets of inputs that runs rotate through; `inputs` as in `measure`. Raises RequestError("invalid")."""
    ranks = {spec.name: len(spec.shape) for spec in engine.inputs}
    stacked = {name for name, array in inputs.items() if array.ndim == ranks.get(name, -2) + 1}
    if stacked != set(inputs) or not inputs:
        one = engine.checked_inputs(inputs)
        return [{name: _rotated(array, by) for name, array in one.items()} for by in range(INPUT_SETS)]
    counts = {len(array) for array in inputs.values()}
    if len(counts) > 1 or counts == {0}:
        raise invalid(f"the inputs hold {sorted(counts)} sets: give each input the same number, at least one")
    return [{name: array[index] for name, array in inputs.items()} for index in range(counts.pop())]


def summarize(samples_ms: np.ndarray) -> Percentiles:
    """Percentiles (linear interpolation), mean, coefficient of variation and runs per second of all samples."""
    p50, p90, p99 = np.percentile(samples_ms, [50, 90, 99])
    mean = float(samples_ms.mean())
    return {
        "latency_ms_p50": float(p50),
        "latency_ms_p90": float(p90),
        "latency_ms_p99": float(p99),
        "latency_ms_mean": mean,
        "latency_cv": variation(samples_ms),
        "runs_per_s": 1000.0 / mean if mean > 0 else 0.0,
    }


def variation(samples_ms: np.ndarray) -> float:
    """The coefficient of variation; 0 for a single sample."""
    mean = float(samples_ms.mean())
    return float(samples_ms.std(ddof=1)) / mean if len(samples_ms) > 1 and mean > 0 else 0.0


def thin(samples_ms: np.ndarray) -> np.ndarray:
    """At most MAX_SAMPLES of the samples, evenly spread over the measurement, in order."""
    if len(samples_ms) <= MAX_SAMPLES:
        return samples_ms
    return samples_ms[np.linspace(0, len(samples_ms) - 1, MAX_SAMPLES).round().astype(int)]


def _prepared(engine: Engine, inputs: Mapping[str, np.ndarray], writes: Sequence[RowWrite], turn: DeviceTurn) -> Any:
    turn.give_way()
    prepared = engine.prepare(inputs)
    if writes:
        engine.keep_rows(prepared, writes)
    return prepared


def _warm_up(engine: Engine, buffers: Iterator[Any], seconds: float, turn: DeviceTurn) -> int:
    """Run for `seconds`, not counting waits, and at least INPUT_SETS times; return the number of runs."""
    spent = 0.0
    runs = 0
    while runs < INPUT_SETS or spent < seconds:
        turn.give_way()
        started = time.perf_counter()
        engine.timed_run(next(buffers))
        spent += time.perf_counter() - started
        runs += 1
    return runs


def sample(
    timed_run: Callable[[], float],
    options: Options,
    figures: Collection[str],
    least_share: float = LEAST_SHARE,
    clock: Callable[[], float] = lambda: time.perf_counter(),
) -> tuple[np.ndarray, str]:
    """Time run after run until the figures are known or the time is over.

    Returns the samples in ms and what ended them: `confidence` or `seconds`. `least_share`: the share of the time
    before which confidence does not end them. `clock` reads seconds.
    """
    samples: list[float] = []
    started = clock()
    next_look = max(options.min_runs, 6)
    while True:
        samples.append(timed_run())
        count = len(samples)
        if count < options.min_runs:
            continue
        elapsed = clock() - started
        if elapsed >= options.seconds:
            return np.asarray(samples), "seconds"
        if count >= next_look and elapsed >= least_share * options.seconds:
            next_look = math.ceil(count * 1.2)
            found = np.asarray(samples)
            is_settled = not figures or variation(found) <= confidence.MACHINE_CV
            if is_settled and confidence.are_known(found, figures):
                return found, "confidence"


def _enqueued(engine: Engine, buffers: Iterator[Any], options: Options) -> EnqueuedPercentiles:
    """Figures of runs without the captured graph; empty if there is no graph.

    The runs end once their median is known: processes differ by more than further runs could resolve.
    """
    device_ms: list[float] = []
    host_ms: list[float] = []
    until = time.perf_counter() + ENQUEUED_SHARE * options.seconds
    next_look = options.min_runs
    while len(device_ms) < options.min_runs or time.perf_counter() < until:
        if len(device_ms) >= next_look:
            next_look = math.ceil(next_look * 1.2)
            if confidence.are_known(device_ms, DEFAULT_FIGURES):
                break
        run = engine.timed_enqueue(next(buffers))
        if run is None:
            return {}
        device_ms.append(run.device_ms)
        host_ms.append(run.host_ms)
    p50, p99 = np.percentile(device_ms, [50, 99])
    return {
        "latency_ms_enqueue_p50": float(p50),
        "latency_ms_enqueue_p99": float(p99),
        "enqueue_host_ms_p50": float(np.median(host_ms)),
    }


def _rotated(array: np.ndarray, by: int) -> np.ndarray:
    return np.roll(array, by, axis=0) if array.ndim else array.copy()


@contextmanager
def _no_garbage_collection() -> Generator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
