"""A text, token by token: what the engines of the prompt and of the steps answer, by the same code for every runtime.

It is for seeing that they compute the model, and for its tokens. What a step takes is measured apart (timing.py), where
the caches stay on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base import ROW_AXIS, Engine
from ..protocol import invalid
from .caches import Caches


@dataclass(frozen=True)
class Step:
    """An engine of steps, and how many of them it does."""

    engine: Path
    steps: int


@dataclass(frozen=True)
class GeneratedText:
    """N new tokens of each of B sequences, and the V logits that each was chosen by."""

    tokens: np.ndarray
    """[B, N]"""
    logits: np.ndarray
    """[B, N, V]"""


def generate(
    engine: Engine,
    prefill: Path,
    steps: Sequence[Step],
    given: Mapping[str, np.ndarray],
    options: Mapping[str, object],
    *,
    give_way: Callable[[], object] = lambda: None,
) -> GeneratedText:
    """Read the prompt, then step after step; each new token is the likeliest, or the one that is given.

    `given`: by name what the engine of the prompt takes; `tokens` [B, T] are the prompt, and the new tokens where they
    are given (those that are read: all but the last one). `options` are those of a load. `give_way` is called before
    each step. No engine is loaded before or after. Raises RequestError.
    """
    tokens_BT = given["tokens"]
    with _loaded(engine, prefill, options):
        prompt = next(spec.shape[-1] for spec in engine.inputs if spec.name == "tokens")
        count = 1 + sum(step.steps for step in steps)
        forced = tokens_BT.shape[1] - prompt
        if forced not in (0, count - 1):
            raise invalid(f"{forced} new tokens are given; give none, or the {count - 1} that are read")
        tokens_BP = np.ascontiguousarray(tokens_BT[:, :prompt], dtype=np.int32)
        rows = engine.run({**given, "tokens": tokens_BP})
    logits = [rows.pop("logits")]
    caches: Caches | None = None
    # A prompt that is learnt lies in the caches before the tokens.
    length = next(rows[name].shape[ROW_AXIS] for name in rows if name.startswith("key_"))
    before = length - prompt
    for step in steps:
        with _loaded(engine, step.engine, options):
            larger = Caches(engine.inputs)
            if caches is None:
                larger.fill(rows, np.arange(length))
                larger.keep({**given, **rows})
            else:
                larger.fill_from(caches, length)
            caches = larger
            for _ in range(step.steps):
                give_way()
                tokens_B = tokens_BT[:, length - before] if forced else logits[-1].argmax(-1)
                rows = engine.run(caches.step(tokens_B, length))
                logits.append(rows.pop("logits"))
                caches.fill(rows, np.array([length]))
                length += 1
    logits_BNV = np.stack(logits, axis=1)
    return GeneratedText(logits_BNV.argmax(-1).astype(np.int32), logits_BNV)


@contextmanager
def _loaded(engine: Engine, path: Path, options: Mapping[str, object]) -> Generator[Any]:
    engine.load(path, options)
    try:
        yield
    finally:
        engine.close()
