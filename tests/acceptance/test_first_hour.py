"""docs/first-hour.md followed with a real worker; its models and its training are made smaller."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import first_hour
from tests.acceptance.deployment import Deployment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]


def test_the_first_hour_leads_to_a_report(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.start_service()
    deployment.start_worker()
    folder = tmp_path / "hour"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LAYERSWEEP_SERVER", deployment.url)
    written = first_hour.document()
    written["model"] |= {"num_layers": {"values": [1, 2]}, "hidden_size": 32}
    written["training"] |= {"steps": 20, "warmup_steps": 2, "eval_every": 4}
    # A test's machine may be busy: its limit is on what others do not slow down.
    written |= {"constraints": ["parameter_count <= 1e6"], "budget": {"trials": 2}}
    printed = first_hour.follow(folder, written)
    assert "train longer" in " ".join(printed[-3].split()), "twenty steps beat no 5-gram model"
    report = (folder / "report.html").read_text()
    assert "Take trial" in report
    assert "further seeds" in report
