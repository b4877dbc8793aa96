"""Alerts, dashboard and runbooks speak of metrics that there are, and of each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "observability"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
PANELS: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
EXPRESSIONS = [
    *(rule["expr"] for rule in RULES),
    *(target["expr"] for panel in PANELS for target in panel.get("targets", [])),
]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:layersweep|process)_\w+", expression))


def test_every_metric_that_is_asked_for_is_given(client: TestClient) -> None:
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    given = {family.name + suffix for family in families for suffix in SUFFIXES.get(family.type, ())}
    asked = set().union(*map(names_in, EXPRESSIONS))
    assert len(asked) > 20
    assert asked <= given


def test_the_metrics_that_the_documentation_names_are_given(client: TestClient) -> None:
    families = {family.name for family in text_string_to_metric_families(client.get("/metrics").text)}
    page = (ROOT / "docs" / "alerts.md").read_text() + (ROOT / "docs" / "operating.md").read_text()
    named = {re.sub(r"_total$", "", name) for name in names_in(page)} - {"process_"}
    assert named <= families


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["for"]


def test_panels_do_not_lie_over_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_promtool_accepts_the_rules_and_their_cases() -> None:
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        checked = subprocess.run(["promtool", *command], cwd=FOLDER, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr
