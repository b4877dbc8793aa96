"""Latencies of an engine that is not there, with noise of a known kind and size.

independent      each run by itself, log-normal
autocorrelated   a run is like the one before it (AR(1), 0.95 from run to run), log-normal
bursty           calm, until something else runs for some 50 runs, about once in 500
bimodal          one run in five is slow, by the same factor each time

`cv` is the standard deviation over the mean of many runs. Processes differ by PROCESS_SPREAD in all their runs. The
calm parts of bursty and bimodal noise vary by CALM_CV.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.engine import confidence, latency
from workers.engine.base import Engine
from workers.engine.confidence import KNOWN_WITHIN, interval
from workers.trial.measuring.measure import REMEASURE
from workers.trial.measuring.repeats import MEDIANS, ProcessFigures

Floats = NDArray[np.float64]

KINDS = ("independent", "autocorrelated", "bursty", "bimodal")
MEDIAN_MS = 1.0
PROCESS_SPREAD = 0.002
CALM_CV = 0.003
CORRELATION = 0.95
BURST_RUNS, CALM_RUNS = 50, 450
SLOW_SHARE = 0.2
CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class Noise:
    """A kind of noise, and how much of it."""

    kind: str
    cv: float

    def runs(self, random: np.random.Generator) -> Iterator[float]:
        """The milliseconds of one run after another in one process."""
        process = MEDIAN_MS * (1 + PROCESS_SPREAD * random.standard_normal())
        last: float | None = None
        while True:
            found, last = self._chunk(random, CHUNK, last)
            yield from (process * found).tolist()

    def truth(self) -> Mapping[str, float]:
        """Figure -> what it is over very many runs of processes that do not differ."""
        return _truth(self)

    def _chunk(self, random: np.random.Generator, count: int, last: float | None) -> tuple[Floats, float]:
        """Relative latencies, going on from the state `last` of the chunk before."""
        calm = np.exp(CALM_CV * random.standard_normal(count))
        if self.kind == "independent":
            return np.exp(self._sigma * random.standard_normal(count)), 0.0
        if self.kind == "autocorrelated":
            steps = random.standard_normal(count) * math.sqrt(1 - CORRELATION**2)
            states = _filtered(steps, random.standard_normal() if last is None else last)
            return np.exp(self._sigma * states), float(states[-1])
        if self.kind == "bimodal":
            return calm * np.where(random.random(count) < SLOW_SHARE, 1 + self._excess(SLOW_SHARE), 1.0), 0.0
        share = BURST_RUNS / (BURST_RUNS + CALM_RUNS)
        bursting = bool(random.random() < share) if last is None else bool(last)
        states = _bursts(random, count, bursting)
        return calm * np.where(states, 1 + self._excess(share), 1.0), float(states[-1])

    @property
    def _sigma(self) -> float:
        return math.sqrt(math.log1p(self.cv**2))

    def _excess(self, share: float) -> float:
        """By how much slow runs are slower, so that the whole varies by `cv`: s·√(p(1-p)) / (1 + p·s) = cv."""
        root = math.sqrt(share * (1 - share))
        assert root > self.cv * share, "so few slow runs cannot vary by so much"
        return self.cv / (root - self.cv * share)


def measured(noise: Noise, random: np.random.Generator, figures: tuple[str, ...]) -> tuple[ProcessFigures, float]:
    """One process, measured by the worker's own loop on a clock that runs cost; and its seconds."""
    clock = _Clock(noise.runs(random))
    options = latency.Options.checked(REMEASURE)
    share = Engine.least_share_of_tails if confidence.TAILS & set(figures) else latency.LEAST_SHARE
    samples_ms, _ = latency.sample(clock.timed_run, options, figures, share, clock=clock.read)
    summary = latency.summarize(samples_ms)
    metrics = {name: float(summary[name]) for name in (*KNOWN_WITHIN, "latency_cv")}
    intervals = {figure: interval(samples_ms, figure) for figure in KNOWN_WITHIN}
    return ProcessFigures(metrics, intervals, dict.fromkeys(MEDIANS, metrics["latency_cv"])), clock.read()


class _Clock:
    def __init__(self, runs: Iterator[float]) -> None:
        self._runs = runs
        self._spent_ms = 0.0

    def timed_run(self) -> float:
        took_ms = next(self._runs)
        self._spent_ms += took_ms
        return took_ms

    def read(self) -> float:
        return self._spent_ms / 1000


@functools.cache
def _truth(noise: Noise) -> Mapping[str, float]:
    random = np.random.default_rng(12345)
    found, _ = noise._chunk(random, 4_000_000, None)  # pyright: ignore[reportPrivateUsage]
    summary = latency.summarize(MEDIAN_MS * found)
    return {name: float(summary[name]) for name in KNOWN_WITHIN}


def _filtered(steps: Floats, state: float) -> Floats:
    """AR(1) with the steps, from a state on."""
    from scipy.signal import lfilter  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    found, _ = lfilter([1.0], [1.0, -CORRELATION], steps, zi=np.array([CORRELATION * state]))  # pyright: ignore[reportUnknownVariableType]
    return np.asarray(found, dtype=np.float64)


def _bursts(random: np.random.Generator, count: int, bursting: bool) -> NDArray[np.bool_]:
    """Which runs lie in a burst; calm and bursts last geometrically long."""
    parts: list[NDArray[np.bool_]] = []
    length = 0
    while length < count:
        size = int(random.geometric(1 / (BURST_RUNS if bursting else CALM_RUNS)))
        parts.append(np.full(size, bursting))
        length += size
        bursting = not bursting
    return np.concatenate(parts)[:count]
