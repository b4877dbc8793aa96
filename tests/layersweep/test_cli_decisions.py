"""The commands of a decision, against a running service."""

from __future__ import annotations

from pathlib import Path

import yaml
from typer.testing import CliRunner

from layersweep import Client
from layersweep.cli import app
from tests.layersweep.finisher import Finisher


def test_from_a_recommendation_to_its_report(
    client: Client, document: Path, finisher: Finisher, tmp_path: Path
) -> None:
    finisher.start()
    sweep = client.submit(document).wait(60)

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*arguments, "--server", client.server])
        return result.exit_code, result.output

    code, text = run("recommendation", sweep.id, "--prefer", "latency_ms_p50", "--within", "validation_loss:50%")
    assert code == 0, text
    for part in ("Take trial", "best latency_ms_p50", "How sure", "Targets"):
        assert part in " ".join(text.split())
    alone = CliRunner().invoke(app, ["recommendation", sweep.id, "--configuration", "--server", client.server])
    assert yaml.safe_load(alone.stdout)["task"] == "causal_lm"
    assert "train longer before you deploy one" in " ".join(alone.stderr.split())
    code, text = run("recommendation", sweep.id, "--prefer", "speed")
    assert (code, "is not a metric" in text) == (2, True)
    assert run("confirm", sweep.id, "--timeout", "5")[0] == 2, "of --wait"
    code, text = run("confirm", sweep.id)
    assert (code, "--test 0.1" in text) == (1, True)
    code, text = run("report", sweep.id, "--out", str(tmp_path / "report.html"))
    assert code == 0, text
    assert "<h2>1. Task and data</h2>" in (tmp_path / "report.html").read_text()
    assert "## 6. Compatibility" in run("report", sweep.id)[1]
    assert run("report", sweep.id, "--out", "report.pdf")[0] == 2
    trial = sweep.recommendation()["trial"]["trial"]
    code, text = run("trial", "download", trial, str(tmp_path / "files"))
    assert (code, "has no artifacts" in text) == (1, True)


def test_a_sweep_without_a_feasible_trial_says_which_limits_to_loosen(
    client: Client, document: Path, finisher: Finisher
) -> None:
    finisher.start()
    document.write_text(document.read_text() + 'constraints: ["validation_loss <= 2"]\n')
    sweep = client.submit(document).wait(60)
    said = sweep.constraints()["says"]
    assert said[0].startswith("6 of 6 trials broke validation_loss <= 2; the nearest, trial ")
    assert "for 1 feasible trial allow validation_loss <= 2." in said[1]
    for command in (("leaderboard",), ("sweep", "show"), ("sweep", "watch"), ("recommendation",)):
        result = CliRunner().invoke(app, [*command, sweep.id, "--server", client.server])
        for line in said:
            assert line[1:] in " ".join(result.output.split()), command


def test_a_sweep_that_no_worker_can_serve_says_what_they_lack(
    client: Client, document: Path, finisher: Finisher
) -> None:
    document.write_text(document.read_text() + "target: {runtime: tensorrt}\n")
    sweep = client.submit(document)

    def shown() -> str:
        result = CliRunner().invoke(app, ["sweep", "show", sweep.id, "--server", client.server])
        return " ".join(result.output.split())

    assert "active: waiting for a worker with runtime tensorrt: no worker is alive" in shown()
    finisher.register()
    assert "runtime tensorrt: the living workers have onnxruntime" in shown()
    waiting = sweep.refresh().record.get("waiting")
    assert waiting is not None
    assert waiting["cause"] == "target"
