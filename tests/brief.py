"""Trials that measure as briefly as a test of something else needs: `python -m tests.brief worker` is such a worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from workers.trial.measuring import measure

BRIEF = {"warmup_seconds": 0.0, "seconds": 0.02, "min_runs": 5}
"""On a busy machine a trial takes all of the seconds that it may, twice, in a process that computes all the while."""


@contextmanager
def brief_measurements() -> Iterator[None]:
    """Within it trials of this process measure briefly."""
    with pytest.MonkeyPatch.context() as patch:
        for options in (measure.MEASURE, measure.REMEASURE):
            for name, value in BRIEF.items():
                patch.setitem(options, name, value)
        yield


if __name__ == "__main__":
    from layersweep.__main__ import main

    with brief_measurements():
        main()
