"""After a start the columns of large sweeps are in memory before anybody asks for them."""

from __future__ import annotations

import asyncio

import pytest

from service.database.models import Sweep
from service.events import events
from service.results import columns, prewarming
from service.results.prewarming import prewarm
from tests.service.sweep_rows import add_sweep, add_trial


def test_nothing_is_read_for_a_large_sweep_that_was_warmed(client, services, monkeypatch):
    def fill(session):
        sweep = add_sweep(session)
        for number in range(4):
            values = {"latency_ms_p50": 1.0 + number, "validation_loss": 2.0, "memory_bytes": 3.0}
            trial = add_trial(session, sweep, number, values, parameters={"num_layers": number, "mlp.kind": "MLP"})
            events.append(session, sweep.id, "trial.ended", trial_id=trial.id, data={"number": number})
        return sweep.id

    sweep_id = services.database.write(fill)
    monkeypatch.setattr(prewarming, "LARGE", 3)
    asyncio.run(prewarm(services.read, services.columns))
    monkeypatch.setattr(columns, "_rows", lambda session, query: pytest.fail(f"read: {query}"))
    names = ("latency_ms_p50", "memory_bytes", "num_layers", "mlp.kind")
    found = services.database.read(lambda s: services.columns.of(s, s.get(Sweep, sweep_id), names))
    assert found.named("memory_bytes").at(3) == 3
    assert found.named("mlp.kind").at(0) == "MLP"


def test_small_sweeps_are_left_alone(client, services, monkeypatch):
    services.database.write(add_sweep)
    monkeypatch.setattr(columns, "_rows", lambda session, query: pytest.fail(f"read: {query}"))
    asyncio.run(prewarm(services.read, services.columns))
