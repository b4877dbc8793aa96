"""docs/first-hour.md is followed to the letter; its trials are finished without computing them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import first_hour
from tests.layersweep.finisher import Finisher

ROOT = Path(__file__).parents[2]


def test_the_first_hour_leads_to_a_report(
    live_service: str, finisher: Finisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finisher.start()
    monkeypatch.setenv("LAYERSWEEP_SERVER", live_service)
    monkeypatch.chdir(tmp_path)
    written = first_hour.document()
    assert written["budget"]["wall_seconds"] < 3600
    # What the finisher answers is meant for models of this size.
    written["model"] |= {"num_layers": {"values": [1, 2]}, "hidden_size": {"values": [16, 32]}}
    printed = first_hour.follow(tmp_path, written | {"budget": {"trials": 4, "parallel": 1}})
    assert "5-gram" in printed[1]
    assert "is a valid sweep document" in printed[2]
    assert "Take trial" in printed[-3]
    assert "<h2>1. Task and data</h2>" in (tmp_path / "report.html").read_text()


def test_the_first_hour_names_commands_of_make_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert first_hour.make_targets() == {"setup", "serve", "worker"} & targets
