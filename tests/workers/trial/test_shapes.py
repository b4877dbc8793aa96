"""One attempt at two shapes with real engines of ONNX Runtime: each is built, compared and measured by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from layers.expressions.metric_names import MetricNames
from layers.metrics import METRICS, split_name
from tests.workers.scripted_service import ScriptedService
from tests.workers.trial.test_trial import Bench
from workers.processes.children import Children
from workers.trial.download import loader

WIDE = {"name": "wide", "batch_size": 4, "sequence_length": 32}
SHORT = {"name": "short", "batch_size": 1, "sequence_length": 8}
NOT_HERE = {"latency_ms_enqueue_p50", "latency_ms_enqueue_p99", "accuracy"}


@pytest.fixture
def bench(
    scripted: ScriptedService, children: Children, capabilities: dict[str, dict[str, Any]], cache_dir: Path
) -> Bench:
    return Bench(scripted, children, capabilities, cache_dir)


def _lease(scripted: ScriptedService, *shapes: Mapping[str, Any], **said: Any) -> dict[str, Any]:
    lease = scripted.lease(**said)
    lease["configuration"]["shapes"] = [dict(shape) for shape in shapes]
    return lease


def test_a_trial_has_the_metrics_of_each_shape(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.scripted.wanted = ["configuration.json", "validation.npz", "model.engine", "loss.engine"]
    constraints = ("latency_ms_p99@short <= 1e6", "latency_ms_p50@wide <= 1e6")
    finish = bench.execute(_lease(bench.scripted, WIDE, SHORT, constraints=constraints))
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("complete", None)

    metrics, measurements = finish["metrics"], finish["measurements"]
    bare = {
        name
        for name, declared in METRICS.items()
        if name not in NOT_HERE and not declared.of_generation and declared.source in ("service", "worker")
    }
    assert set(metrics) == {name for name in MetricNames(("wide", "short")) if split_name(name)[0] in bare}
    assert metrics["flops@wide"] > metrics["flops@short"]
    assert metrics["io_bytes@wide"] == 16 * metrics["io_bytes@short"], "4 x 32 tokens and 1 x 8"
    for name, sequences in (("wide", 4), ("short", 1)):
        assert metrics[f"throughput_per_s@{name}"] == pytest.approx(
            sequences * 1000 / metrics[f"latency_ms_mean@{name}"]
        )
        taken = measurements[f"latency_samples_ms@{name}"]
        assert taken["latency_ms_p50"] == metrics[f"latency_ms_p50@{name}"]
        assert {"first", "final"} <= set(measurements[f"parity@{name}"])
        assert measurements[f"latency_first@{name}"]["latency_ms_p50"] > 0
        assert measurements[f"memory@{name}"]["memory_bytes"] == metrics[f"memory_bytes@{name}"]
    worst = max(measurements[f"parity@{name}"]["final"]["error"] for name in ("wide", "short"))
    assert metrics["parity_error"] == worst

    # The files are the first shape's, and its figures stand there without a name of it.
    for name, content in bench.scripted.uploaded.items():
        (tmp_path / name).write_bytes(content)
    described = json.loads((tmp_path / "configuration.json").read_text())
    assert described["metrics"]["latency_ms_p50"] == metrics["latency_ms_p50@wide"]
    monkeypatch.setattr(loader, "MEASURE_SECONDS", 0.05)
    found = loader.measured(tmp_path, described)
    assert found["validation_loss"] == pytest.approx(metrics["validation_loss"], rel=1e-6)


def test_a_constraint_on_a_later_shape_ends_a_trial_before_it_is_trained(bench: Bench) -> None:
    finish = bench.execute(_lease(bench.scripted, WIDE, SHORT, constraints=("memory_bytes@short <= 1",)))
    assert finish is not None
    assert finish["outcome"] == "infeasible"
    assert finish["reason"].startswith("memory_bytes@short <= 1 is broken by")
    assert bench.scripted.phases() == ["check", "build", "measure", "finish"]
    assert "latency_first@wide" in finish["measurements"], "what was measured before it is kept"


def test_a_probe_is_measured_at_each_shape(bench: Bench) -> None:
    scripted = ScriptedService("probe")
    bench.scripted = scripted
    finish = bench.execute(_lease(scripted, WIDE, SHORT))
    assert finish is not None
    assert finish["outcome"] == "complete", finish["reason"]
    assert {"latency_ms_p50@wide", "latency_ms_p50@short", "parameter_count"} <= finish["metrics"].keys()


@pytest.mark.slow
def test_texts_are_generated_at_each_shape(bench: Bench) -> None:
    short, wide = (
        {"name": name, "batch_size": batch, "prompt_tokens": prompt, "new_tokens": 3, "sequence_length": prompt + 3}
        for name, batch, prompt in (("short", 1, 5), ("wide", 2, 9))
    )
    inference = {"mode": "generate", **{name: value for name, value in wide.items() if name != "name"}}
    lease = _lease(bench.scripted, wide, short, inference=inference, training={"steps": 4})
    lease["hardware_first"] = False
    finish = bench.execute(lease)
    assert finish is not None
    assert finish["outcome"] == "complete", finish["reason"]
    metrics = finish["metrics"]
    for name in ("short", "wide"):
        assert 0 < metrics[f"decode_ms_per_token_p50@{name}"] <= metrics[f"decode_ms_per_token_p99@{name}"]
        assert metrics[f"prefill_ms_p50@{name}"] > 0
        assert metrics[f"memory_bytes@{name}"] > metrics[f"kv_cache_bytes@{name}"]
    # Two sequences of 9 + 3 tokens and one of 5 + 3; the last token is read by nobody. Room is for a multiple of 8.
    assert metrics["kv_cache_bytes@wide"] * 8 == metrics["kv_cache_bytes@short"] * 2 * 16
