"""A sweep is confirmed on a split that it has not seen, and its recommended trial runs outside of the service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from layersweep import Client
from tests.acceptance.deployment import Deployment

DOCUMENT = {
    "name": "confirmed",
    "task": "causal_lm",
    "dataset": "rhymes",
    "model": {"num_layers": 1, "hidden_size": {"values": [16, 32]}, "attention": {"num_attention_heads": 2}},
    "training": {"steps": 40, "batch_size": 8, "learning_rate": 3e-3, "eval_every": 20},
    "inference": {"batch_size": 4, "sequence_length": 32},
    "objectives": [{"metric": "validation_loss"}, {"metric": "latency_ms_p50"}],
    "constraints": ["latency_ms_p50 <= 1000"],
    "budget": {"trials": 2},
}


@pytest.mark.slow
def test_confirmation_and_artifacts_of_a_real_sweep(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_service()
    worker = deployment.start_worker()
    client = Client(deployment.url)
    text = "".join(f"{number} green bottles hanging on the wall, {number**3} to go\n" for number in range(1500))
    client.add_dataset("rhymes", text.encode(), tokenizer="char", validation=0.2, test=0.2)
    sweep = client.submit(DOCUMENT).wait(150)
    assert sweep.state == "completed", deployment.log("worker")

    confirmation = sweep.confirm(seeds=2, candidates=1)
    # The worker that executes it is killed: another attempt takes its place, and nothing is counted twice.
    child = client.sweep(confirmation["id"])
    deployment.wait_until(lambda: child.refresh().record["progress"]["running"] > 0, "a further training runs")
    deployment.kill(worker)
    deployment.start_worker("second")
    child.wait(150)
    (found,) = sweep.confirmations()
    assert found["state"] == "completed", deployment.log("second")
    (candidate,) = found["candidates"]
    assert [run["state"] for run in candidate["runs"]] == ["complete", "complete"]
    assert candidate["test"]["spread"] is not None
    assert candidate["test"]["expected"] is None, "two seeds have no interval"
    assert sweep.recommendation()["certainty"]["seeds"] == 3

    trial = sweep.recommendation()["trial"]
    folder = tmp_path / "artifacts"
    names = {path.name for path in client.download_artifacts(trial["trial"], folder)}
    assert {"weights.safetensors", "model.onnx", "model.engine", "configuration.json", "run.py"} <= names
    ran = subprocess.run(
        [sys.executable, "-I", str(folder / "run.py"), str(folder)], capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["validation_loss"] == pytest.approx(trial["metrics"]["validation_loss"], rel=1e-6)
    assert answer["runs"] > 10
