"""How long a prompt and a step take, by the loop that measures everything (latency.py).

What a step takes is its graph and the writing of its rows into the caches, all on the device. It runs on one set of
buffers: so does a text, whose caches are read again by the next step.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import numpy as np

from .. import latency
from ..base import Engine
from ..confidence import Interval, interval
from ..latency import DeviceTurn
from ..protocol import invalid
from ..verbs import MeasureAnswer
from .caches import Caches, row_writes

FIRST_TOKEN_SHARE = 0.25
"""Of `seconds`, for prompts that are timed from the host to the host."""

SEED = 0


def first_token_ms(engine: Engine, inputs: Mapping[str, np.ndarray], options: Mapping[str, object]) -> Interval:
    """Median milliseconds from a prompt on the host to its next token there, for the loaded engine of the prompt.

    inputs: as of `latency.measure`; the first set of them is used.
    """
    chosen = latency.Options.checked(options)
    one = latency.input_sets(engine, inputs)[0]
    prepared = engine.prepare(one)
    times_ms: list[float] = []
    until = time.perf_counter() + FIRST_TOKEN_SHARE * chosen.seconds
    while len(times_ms) < chosen.min_runs or time.perf_counter() < until:
        started = time.perf_counter_ns()
        engine.answer(prepared, one, "logits").argmax(-1)
        times_ms.append((time.perf_counter_ns() - started) / 1e6)
    return interval(np.asarray(times_ms), "latency_ms_p50")


def measure_step(
    engine: Engine,
    position: int,
    options: Mapping[str, object],
    *,
    figures: Collection[str],
    shared: DeviceTurn | None = None,
    alone: DeviceTurn | None = None,
) -> MeasureAnswer:
    """As `latency.measure`, of the step that reads the tokens at `position`, with caches of random numbers."""
    engine.require_loaded()
    given = {spec.name: spec for spec in engine.inputs}
    if "tokens" not in given:
        raise invalid(f"the engine of a step takes tokens; this one takes {', '.join(given)}")
    generator = np.random.default_rng(SEED)
    inputs = Caches(engine.inputs).step(np.zeros(given["tokens"].shape[0], np.int32), position)
    for name, array in inputs.items():
        if name == "source_mask":
            array[...] = 1
        elif name.startswith(("past_", "source_")):
            array[...] = generator.standard_normal(array.shape)
    one_set = {name: array[None] for name, array in inputs.items()}
    writes = row_writes(engine.inputs, position)
    return latency.measure(engine, one_set, options, figures=figures, shared=shared, alone=alone, writes=writes)
