"""Points that were chosen together with a trial's own: what it leaves in its attributes for the trials after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from service.scheduling.surrogate.columns import Value
from service.scheduling.surrogate.space import CodedSpace, Points

_ATTRIBUTE = "surrogate:ahead"
_OF_WAITING = 2
"""One more point is chosen ahead for so many trials that run: what they will say would not be known in time anyhow."""
_OF_KNOWN = 50
"""Or one for so many that have ended: the more are known, the less a further one changes."""
_MOST_OF_WAITING = 4
"""That many for each trial that runs at most."""
_MOST = 128


def count_ahead(waiting: int, known: int) -> int:
    """How many points to choose together if so many trials run and have ended: one if none runs."""
    by_known = min(known // _OF_KNOWN, _MOST_OF_WAITING * waiting)
    return min(1 + max(waiting // _OF_WAITING, by_known), _MOST)


def leave(study: Study, trial: FrozenTrial, points: Points) -> None:
    """Keep points for the trials that follow, in the trial's system attributes: they are read back with it."""
    rows = [
        [float(code) if there else None for code, there in zip(codes, presence, strict=True)]
        for codes, presence in zip(points.codes, points.presence, strict=True)
    ]
    study._storage.set_trial_system_attr(trial._trial_id, _ATTRIBUTE, rows)


def take(space: CodedSpace, trials: Sequence[FrozenTrial]) -> dict[str, Value] | None:
    """The values that were kept for the trial after these; None if there are none, or they were tried meanwhile."""
    for back, trial in enumerate(reversed(trials[-_MOST:])):
        rows = trial.system_attrs.get(_ATTRIBUTE)
        if rows is None:
            continue
        if back >= len(rows) or len(rows[back]) != len(space):
            return None
        presence = np.array([code is not None for code in rows[back]], dtype=np.bool_)
        values = space.decode(np.array([code or 0.0 for code in rows[back]]), presence)
        later = trials[len(trials) - back :]
        return None if any(other.params == values for other in later) else values
    return None
