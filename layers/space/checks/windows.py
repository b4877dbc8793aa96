"""Attention windows that hide nothing: the sequences of a sweep are no longer than they are."""

from __future__ import annotations

import random
from collections.abc import Iterator

from layers.declarations.per_layer import base_path
from layers.parameter import ParameterError
from layers.problems import Problem
from layers.space.space import Space

WINDOW = "attention.max_attention_window_size"
SAMPLES = 100
"""Points whose sequences are looked at."""


def window_notes(space: Space) -> Iterator[Problem]:
    """A remark at each window that is as long as the longest sequence that is trained or measured."""
    windows = [entry for entry in space.entries if base_path(entry.name) == WINDOW]
    longest = _longest_sequence(space) if windows else None
    if longest is None:
        return
    # What is written once for all layers is an entry of each.
    written = {pointer: int(window) for entry in windows for pointer, window in entry.written_numbers()}
    for pointer, window in written.items():
        if window >= longest:
            detail = f"a window of {window:,} hides nothing: no sequence has more than {longest:,} tokens"
            yield Problem(pointer, detail, f"choose a window below {longest:,}, or longer sequences")


def _longest_sequence(space: Space) -> int | None:
    """Tokens of the longest sequence among some points; None if none of them can be had."""
    source = random.Random(0)
    found: list[int] = []
    for _ in range(SAMPLES):
        environment, _errors = space.draw(source)
        values = space.values_of(environment)
        try:
            inference = space.complete_inference(values)
            training = space.complete_training(values, inference)
        except ParameterError:
            continue
        sections = (inference, training, *(shape.values for shape in space.shapes))
        found += [
            int(section[name])
            for section in sections
            for name in ("sequence_length", "source_length")
            if name in section
        ]
    return max(found, default=None)
