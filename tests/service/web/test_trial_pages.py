"""Where a trial's page leads, and what it folds away."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.http.dependencies import Services
from tests.service.pages import page
from tests.service.sweep_rows import add_sweep, add_trial, add_worker, rank


def fill(session: Session) -> tuple[str, list[str], str]:
    sweep = add_sweep(session)
    losses = (2.0, 1.0, 1.1, 1.5)
    trials = [
        add_trial(session, sweep, number, {"latency_ms_p50": 4.0 - number, "validation_loss": loss})
        for number, loss in enumerate(losses)
    ]
    seed = {"training.seed": 1}
    again = add_trial(session, sweep, -1, {"validation_loss": 1.1}, replicate_of=trials[1].id, parameters=seed)
    rank(session, sweep, trials)
    return sweep.id, [trial.id for trial in trials], again.id


def test_a_trial_leads_to_its_neighbours_and_to_the_recommended_one(client: TestClient, services: Services) -> None:
    sweep, trials, again = services.database.write(fill)
    first = page(client, f"/trials/{trials[0]}")
    assert 'rel="prev"' not in first
    assert f'<a rel="next" href="/trials/{trials[1]}">' in first
    assert f'<a href="/trials/{trials[2]}">' in first
    assert f'href="/sweeps/{sweep}/compare?trial=2&amp;trial=0"' in first
    assert "+100% <span" in first, "of latency, against the recommended one"
    best = page(client, f"/trials/{trials[2]}")
    assert f'<a rel="prev" href="/trials/{trials[1]}">' in best
    assert "Compare with it" not in best
    assert "recommended</span>" in best
    assert not re.search(r'rel="(prev|next)"', page(client, f"/trials/{again}"))


def test_a_parameter_has_its_meaning_and_its_source_is_folded(client: TestClient, services: Services) -> None:
    _, trials, _ = services.database.write(fill)
    text = page(client, f"/trials/{trials[0]}")
    table = text[text.index("What this sweep varies") : text.index('<details id="sources">')]
    assert "blocks of attention and feed-forward" in table
    assert "arXiv" not in table
    assert "arXiv" in text


def test_the_versions_of_a_worker_are_folded(client: TestClient, services: Services) -> None:
    services.database.write(add_worker)
    text = page(client, "/workers")
    assert "<summary>versions</summary>" in text
    assert "<dt>onnxruntime</dt><dd>1.32.0</dd>" in text
