"""Which share of a space can leave as a checkpoint of `transformers`."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from layers.checkpoints.config_json import CheckpointError
from layers.checkpoints.matching import match
from layers.space.evaluation import Rejection
from layers.space.space import Space

DRAWS = 100
"""Points that are looked at: enough to tell none, some, most and all apart."""


@dataclass(frozen=True, slots=True)
class TransformersShare:
    """Of `judged` points that keep the rules: how many are of which architecture, and why one is of none."""

    judged: int
    architectures: dict[str, int]
    misfit: str | None
    """What is in the way of one that is of none; None if all are of some."""


def transformers_share(space: Space, draws: int = DRAWS) -> TransformersShare:
    """Look at every point of a space with at most `draws`, at so many drawn at random with a fixed seed of others;
    those that break a rule do not count."""
    source = random.Random(0)
    points = space.points()
    is_small = points is not None and points <= draws
    found: Counter[str] = Counter()
    misfit: str | None = None
    judged = 0
    for environment, errors in space.walk() if is_small else (space.draw(source) for _ in range(draws)):
        completed = None if errors else space.complete_or_reject(space.values_of(environment))
        if completed is None or isinstance(completed, Rejection):
            continue
        judged += 1
        try:
            found[match(completed.model).architecture.name] += 1
        except CheckpointError as error:
            misfit = misfit or str(error)
    return TransformersShare(judged, dict(found.most_common()), misfit)
