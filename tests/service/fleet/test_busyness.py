"""How busy workers were in the last minutes."""

from __future__ import annotations

import pytest

from service.database.models import Attempt, Worker
from service.database.sessions import now
from service.fleet import busyness
from service.leases import queue
from tests.service.rows import Rows


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [([], 0.0), ([(0.0, 2.0)], 2.0), ([(1.0, 4.0), (0.0, 2.0)], 4.0), ([(0.0, 9.0), (1.0, 2.0), (10.0, 11.0)], 10.0)],
)
def test_time_that_several_attempts_share_counts_once(spans: list[tuple[float, float]], seconds: float) -> None:
    assert busyness.covered_seconds(spans) == seconds


def test_it_is_the_share_of_the_window_in_which_attempts_ran(rows: Rows) -> None:
    database = rows.database
    worker, idle = rows.worker(slots=2), rows.worker(slots=1)
    rows.sweep(3)
    time = database.read(now)
    rows.update(Worker, worker, registered_at=time - 10_000)
    leases = database.write(lambda session: queue.claim_several(session, worker, 30, 2))
    spans = {leases[0].trial: (time - 5000, time - 300), leases[1].trial: (time - 450, time - 150)}
    for trial, (started_at, ended_at) in spans.items():
        database.write(
            lambda session, trial=trial, ends=(started_at, ended_at): (
                session.query(Attempt)
                .filter(Attempt.trial_id == trial)
                .update({"started_at": ends[0], "ended_at": ends[1]})
            )
        )
    found = database.read(lambda session: busyness.of_workers(session, [worker, idle]))
    # Of 600 s held from -600 to -150; the slots 300 + 300 of 1200.
    assert found[worker].device == pytest.approx(0.75, abs=0.05)
    assert found[worker].slots == pytest.approx(0.5, abs=0.05)
    assert (found[idle].device, found[idle].slots) == (0.0, 0.0)
