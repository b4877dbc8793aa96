"""`layersweep sweep assert`, against a running service and a worker that knows its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from layersweep import Client, ConflictError, ResponseError
from layersweep.cli import app
from layersweep.gates import Gate, MeasurementFailedError
from layersweep.records.assertions import MeasuredMetric
from layersweep.sweep import Sweep
from tests.layersweep.finisher import Finisher

SLOWER = "latency_ms_p50 <= 0.9 * baseline"
SAME = "latency_ms_p50 <= 1.0 * baseline"


@pytest.fixture
def sweep(client: Client, document: Path, finisher: Finisher) -> Sweep:
    finisher.start()
    return client.submit(document).wait(60)


def test_a_gate_from_its_baseline_to_each_verdict(client: Client, sweep: Sweep, tmp_path: Path) -> None:
    baseline, report = tmp_path / "baseline.json", tmp_path / "junit.xml"

    def run(*arguments: str) -> tuple[int, str]:
        command = ["sweep", "assert", sweep.id, *arguments, "--junit", str(report), "--server", client.server]
        result = CliRunner().invoke(app, command)
        return result.exit_code, " ".join(result.output.split())

    code, text = run("--metric", SAME)
    assert (code, "--write-baseline" in text) == (2, True)
    code, text = run("--metric", SAME, "--write-baseline", str(baseline), "--most-builds", "6")
    assert code == 0, text
    kept = json.loads(baseline.read_text())
    assert len(kept["metrics"]["latency_ms_p50"]["builds"]) == 6

    code, text = run("--metric", SAME, "--metric", SLOWER, "--baseline", str(baseline))
    assert (code, "broken latency_ms_p50 <= 0.9 * baseline" in text) == (4, True), text
    suite = ElementTree.parse(report).getroot()[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "2",
        "failures": "1",
        "errors": "0",
        "skipped": "0",
    }
    assert [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None] == [SLOWER]

    few = ("--metric", "latency_ms_p50 <= 99", "--builds", "2", "--most-builds", "2")
    code, text = run(*few)
    assert (code, "cannot be judged" in text) == (0, True), text
    assert ElementTree.parse(report).getroot()[0].get("skipped") == "1"
    assert run(*few, "--strict")[0] == 5

    baseline.write_text(json.dumps({**kept, "target": "onnxruntime 1.0 on another processor"}))
    code, text = run("--metric", SAME, "--baseline", str(baseline))
    assert (code, "on another processor" in text) == (6, True), text
    assert ElementTree.parse(report).getroot()[0].get("errors") == "1"
    baseline.write_text("{}")
    assert run("--metric", SAME, "--baseline", str(baseline))[0] == 2


def test_two_trials_are_measured_in_turns(client: Client, sweep: Sweep) -> None:
    fast, slow = (sweep.leaderboard(sort=order)[0] for order in ("latency_ms_p50", "-latency_ms_p50"))
    names = [f"{sweep.id}/{row['number']}" for row in (fast, slow)]
    for (trial, other), code in ((names, 0), (names[::-1], 4)):
        command = ["sweep", "assert", trial, "--metric", SAME, "--against", other, "--json", "--server", client.server]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == code, result.output
        judgement = json.loads(result.stdout)
        assert judgement["limits"][0]["change"]["estimate"] == pytest.approx(
            (fast["metrics"]["latency_ms_p50"] or 0) / (slow["metrics"]["latency_ms_p50"] or 1) - 1
            if code == 0
            else (slow["metrics"]["latency_ms_p50"] or 0) / (fast["metrics"]["latency_ms_p50"] or 1) - 1
        )


def test_what_is_no_measurement_of_one_trial_is_not_judged(client: Client, sweep: Sweep) -> None:
    with pytest.raises(ResponseError, match="differ in more than their seed"):
        sweep.judge(["latency_ms_p50 <= 9"])
    with pytest.raises(ResponseError, match="there is no sweep"):
        sweep.remeasure(["latency_ms_p50 <= 9"], builds=1).wait(30).judge([SAME], against="01M8M2E1FBXD25GF3G32FCYDH9")
    measured = sweep.remeasure([SAME], builds=1).wait(30)
    baseline = measured.judge([SAME], against=measured.id)["measured"]
    for metric in ({"value": 1e-300, "builds": [1e-300]}, {"value": 1e30, "builds": [1e30]}):
        baseline["metrics"]["latency_ms_p50"] = cast("MeasuredMetric", metric)
        assert measured.judge(["latency_ms_p50 <= 1e308 * baseline"], baseline=baseline)["verdict"] == "undecided"
    baseline["metrics"]["latency_ms_p50"]["value"] = 1e31
    with pytest.raises(ResponseError, match="1e"):
        measured.judge([SAME], baseline=baseline)
    measuring = sweep.remeasure(["latency_ms_p50 <= 9"], builds=20)
    measuring.cancel()
    with pytest.raises(MeasurementFailedError, match="cancelled"):
        Gate(["latency_ms_p50 <= 9"]).judge_sweeps([measuring], builds=20)
    with pytest.raises(ConflictError, match="no build of it is complete"):
        client.submit({**sweep.record["document"], "name": "waits", "target": {"runtime": "tensorrt"}}).judge(
            ["latency_ms_p50 <= 9"]
        )
