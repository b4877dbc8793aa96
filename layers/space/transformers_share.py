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
    """Of `judged` random points that keep the rules: how many are of which architecture, and why one is of none."""

    judged: int
    architectures: dict[str, int]
    misfit: str | None
    """What is in the way of one that is of none; None if all are of some."""


def transformers_share(space: Space, draws: int = DRAWS) -> TransformersShare:
    """Look at so many points of the space, drawn at random with a fixed seed; those that break a rule do not count."""
    source = random.Random(0)
    found: Counter[str] = Counter()
    misfit: str | None = None
    judged = 0
    for _ in range(draws):
        environment, errors = space.draw(source)
        completed = None if errors else space.complete_or_reject(space.values_of(environment))
        if completed is None or isinstance(completed, Rejection):
            continue
        judged += 1
        try:
            found[match(completed.model).architecture.name] += 1
        except CheckpointError as error:
            misfit = misfit or str(error)
    return TransformersShare(judged, dict(found.most_common()), misfit)
