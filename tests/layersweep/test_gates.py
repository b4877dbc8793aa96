"""`layersweep sweep assert`, against a running service and a worker that knows its answers."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest
from rich.console import Console
from typer.testing import CliRunner

from layersweep import Client, ConflictError, InvalidUsageError, ResponseError
from layersweep.cli import app
from layersweep.cli.common import EXIT_TIMEOUT
from layersweep.display import judgements
from layersweep.display.gate_lines import GateLines
from layersweep.errors import UnreachableError
from layersweep.gates import Gate, MeasurementFailedError, Trial
from layersweep.records.assertions import Baseline, JudgedLimit, Judgement, MeasuredMetric, Range
from layersweep.sweep import Sweep
from tests.layersweep.answers import sweep_record
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
    code, text = run("--metric", SAME, "--write-baseline", str(baseline), "--most-builds", "6", "--archive")
    assert code == 0, text
    assert list(client.sweeps(name="anew")) == []
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

    # Not even a limit that is broken many times over can be called broken by so few builds.
    code, text = run("--metric", "latency_ms_p50 <= 1e-6", "--builds", "5", "--most-builds", "5")
    assert (code, "--builds 6 --most-builds 6" in text) == (2, True), text
    assert run("--metric", "latency_ms_p50 <= 1e-6", "--builds", "50", "--most-builds", "6")[0] == 2
    code, text = run("--metric", "latency_ms_p50 <= 1e-6", "--builds", "6", "--most-builds", "6")
    assert (code, "broken by" in text) == (4, True), text

    baseline.write_text(json.dumps({**kept, "target": "onnxruntime 1.0 on another processor"}))
    code, text = run("--metric", SAME, "--baseline", str(baseline))
    assert (code, "on another processor" in text) == (6, True), text
    assert ElementTree.parse(report).getroot()[0].get("errors") == "1"
    baseline.write_text("{}")
    assert run("--metric", SAME, "--baseline", str(baseline))[0] == 2


def test_the_first_round_can_call_a_limit_broken() -> None:
    """Whatever it is compared with: a number, a baseline of 40 builds, or another trial in turns."""
    builds: list[float] = [1.0] * 40
    baseline = cast("Baseline", {"metrics": {"latency_ms_p50": {"value": 1.0, "builds": builds}}})
    assert Gate(["latency_ms_p50 <= 2"]).counts() == [8, 16, 32, 40]
    assert Gate([SAME]).counts() == Gate([SAME]).counts(baseline) == [5, 10, 20, 40]
    assert Gate([SAME, "memory_bytes <= 9"]).counts(baseline)[0] == 8
    assert Gate([SAME], 4, 4).counts() == [4]
    with pytest.raises(InvalidUsageError, match="--builds 4 --most-builds 4"):
        Gate([SAME], 3, 3).counts()
    del builds[1:]
    with pytest.raises(InvalidUsageError, match="Write the baseline again"):
        Gate([SAME]).counts(baseline)


def test_a_gate_says_how_long_it_will_take() -> None:
    now = 0.0
    console = Console(file=io.StringIO(), width=200)
    lines = GateLines(console, 40, lambda: now)
    record = sweep_record(reason="waiting for a worker", created_at=datetime.now(UTC).isoformat())
    measuring = Sweep(cast("Any", None), cast("Any", record))

    def printed(at: float, complete: int) -> str:
        nonlocal now
        now, before = at, cast("io.StringIO", console.file).tell()
        record["progress"]["complete"] = complete
        lines.progress(measuring, 8)
        return cast("io.StringIO", console.file).getvalue()[before:]

    assert printed(0, 0).endswith("0 of 8 builds, 40 at most\n"), "a sweep that was just made waits for nothing yet"
    record["created_at"] = "2026-01-01T00:00:00.000Z"
    assert printed(5, 0).endswith("; waiting for a worker\n")
    record["target"] = {"key": "cpu"}
    record["reason"] = None
    assert printed(20, 2).endswith("2 of 8 builds, 40 at most; about 1 min more\n")
    assert printed(30, 2) == ""
    assert printed(60, 2).endswith("; about 3 min more\n"), "half a minute without a line is long enough"


def test_a_judgement_outlives_sweeps_that_cannot_be_archived(
    client: Client, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Sweep, **changes: object) -> Sweep:
        raise UnreachableError("the service went away")

    monkeypatch.setattr(Sweep, "annotate", refuse)
    command = ["sweep", "assert", sweep.id, "--metric", "latency_ms_p50 <= 9", "--archive", "--server", client.server]
    result = CliRunner().invoke(app, command)
    text = " ".join(result.output.split())
    assert (result.exit_code, "kept latency_ms_p50 <= 9" in text) == (0, True), text
    assert "is not archived: the service went away" in text


def test_a_gate_that_gives_up_cancels_its_builds(client: Client, sweep: Sweep, finisher: Finisher) -> None:
    finisher.stop()
    command = ["sweep", "assert", sweep.id, "--metric", "latency_ms_p50 <= 9", "--server", client.server]
    result = CliRunner().invoke(app, [*command, "--timeout", "1"])
    text = " ".join(result.output.split())
    assert result.exit_code == EXIT_TIMEOUT, text
    measuring = next(iter(client.sweeps()))
    assert f"{measuring.id}): 0 of 8 builds, 40 at most" in text
    assert f"The sweep {measuring.id}, which measured anew, is cancelled" in text
    assert "no judgement within 1 s: 0 of 8 builds are complete" in text
    assert measuring.state == "cancelled"

    def interrupt(measuring: Sweep, builds: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupted:
        Gate([SAME]).judge_against(Trial(sweep), Trial(sweep), on_progress=interrupt)
    assert len(interrupted.value.__notes__) == 2
    assert {found.state for found in client.sweeps(name="anew")} == {"cancelled"}


def limit_of(text: str, estimate: float, low: float | None, high: float | None) -> JudgedLimit:
    excess: Range = {"estimate": estimate, "low": low, "high": high}
    return {
        "limit": text,
        "metrics": ["latency_ms_p50"],
        "verdict": "undecided",
        "excess": excess,
        "baseline": None,
        "change": excess,
    }


def test_a_limit_that_cannot_be_judged_names_the_cause() -> None:
    measured = cast("Baseline", {"metrics": {"latency_ms_p50": {"value": 0.7, "builds": [0.69, 0.7, 0.76]}}})

    def of(limit: JudgedLimit) -> tuple[str, str]:
        judgement = cast("Judgement", {"builds": 3, "limits": [limit], "measured": measured})
        return judgements.says(limit, measured), judgements.why_undecided(judgement)

    says, why = of(limit_of("latency_ms_p50 <= 0.1", 0.605, None, None))
    assert says.endswith("cannot be judged: broken by 0.6050 ms as measured, and too few builds for an interval")
    assert "too few, however well they agree" in why
    noisy = limit_of("latency_ms_p50 <= 1.02 * baseline", -0.00294, -0.028, 0.013)
    says, why = of(noisy)
    assert says.endswith("reaches from 0.028 ms within it to 0.013 ms over it")
    assert "kept by 0.002940 ms as measured" in says
    assert "differ by more" in why
    (moved,) = judgements.moved(cast("Judgement", {"limits": [noisy]}))
    assert "moves by -2.8% to +1.3%" in moved


def test_an_undecided_gate_passes_with_a_warning_unless_strict(
    client: Client, document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = limit_of(SAME, -0.00294, -0.028, 0.013)
    measured = {"target": "here", "metrics": {"latency_ms_p50": {"value": 0.7, "builds": [0.69, 0.7, 0.76]}}}
    judgement = {"id": "01", "verdict": "undecided", "builds": 40, "limits": [limit], "measured": measured}
    monkeypatch.setattr(Gate, "judge", lambda *_, **__: judgement)
    sweep, baseline, report = client.submit(document), tmp_path / "baseline.json", tmp_path / "junit.xml"
    command = ["sweep", "assert", sweep.id, "--metric", SAME, "--write-baseline", str(baseline)]
    command += ["--junit", str(report), "--server", client.server]
    for given, code in ((["--strict"], 5), ([], 0), (["--json"], 0)):
        ended = CliRunner().invoke(app, [*command, *given])
        said = " ".join(ended.stderr.split())
        assert ended.exit_code == code, ended.output
        assert ("warning: passed although" in said) == (code == 0)
        assert "against itself, latency_ms_p50 moves by -2.8% to +1.3%" in said
        assert ElementTree.parse(report).getroot()[0].get("skipped" if code == 0 else "failures") == "1"
    assert json.loads(baseline.read_text()) == measured


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
