"""An attempt in the inference mode `generate`, with real children."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest

from layers.declarations.inference.generation import Bucket, GenerationConfig
from layers.metrics import METRICS
from tests.workers.scripted_service import ScriptedService
from tests.workers.trial.test_trial import ALL_PHASES, Bench
from tests.workers.trial.test_trial import bench as bench
from workers.engine.confidence import Interval
from workers.engine.verbs import BuildAnswer
from workers.trial.build import BuiltEngine
from workers.trial.generation.engines import GenerationEngines, StepEngine
from workers.trial.generation.measure import memory_of
from workers.trial.generation.percentiles import PERCENTILES, summed, weighted_intervals, weighted_percentiles

INFERENCE = {"mode": "generate", "batch_size": 2, "prompt_tokens": 8, "new_tokens": 24, "sequence_length": 32}
GENERATED = {name for name, metric in METRICS.items() if metric.of_generation}


@pytest.fixture
def lease(bench: Bench) -> dict[str, Any]:
    return bench.scripted.lease(training={"steps": 4}, inference=INFERENCE)


@pytest.mark.slow
def test_a_trial_generates(bench: Bench, lease: dict[str, Any], tmp_path: Path) -> None:
    bench.scripted.wanted = ["README.md", "configuration.json", "model.engine", "loss.engine", "prefill.onnx"]
    bench.scripted.wanted += ["prefill.engine", "decode.onnx", "decode_1.engine", "decode_2.engine", "decode.engine"]
    bench.scripted.wanted += ["validation.npz", "run.py"]
    finish = bench.execute(lease)
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("complete", None)
    assert bench.scripted.phases() == ALL_PHASES
    assert list(bench.scripted.uploaded) == bench.scripted.wanted
    step = onnx.load_model_from_string(bench.scripted.uploaded["decode.onnx"])
    shapes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in step.graph.input}
    assert shapes["past_key_0"] == [2, 2, 32, 8], "the caches of a whole text"

    metrics, measurements = finish["metrics"], finish["measurements"]
    assert set(metrics) >= GENERATED
    # 1 layer, 2 sequences, 2 heads of 8, room for 32 keys and as many values in float32.
    assert metrics["kv_cache_bytes"] == 2 * 2 * 2 * 8 * 32 * 4
    assert metrics["io_bytes"] > metrics["kv_cache_bytes"]
    assert metrics["memory_bytes"] == sum(metrics[f"{name}_bytes"] for name in ("weights", "activation", "io"))
    assert metrics["weights_bytes"] > 2 * 4 * 0.9 * metrics["parameter_count"], "of two engines"
    assert metrics["time_to_first_token_ms"] > metrics["prefill_ms_p50"] * 0.5
    buckets = measurements["generation"]["decode"]
    assert [(bucket["capacity"], bucket["steps"]) for bucket in buckets] == [(16, 6), (24, 6), (32, 11)]
    decode_ms = sum(bucket["steps"] * bucket["latency_ms_p50"] for bucket in buckets)
    assert metrics["tokens_per_s"] == pytest.approx(2 * 24 * 1000 / (metrics["prefill_ms_p50"] + decode_ms))
    medians = [bucket["latency_ms_p50"] for bucket in buckets]
    assert min(medians) * 0.9 < metrics["decode_ms_per_token_p50"] < max(medians) * 1.1
    assert measurements["parity"]["generation_final"]["worst"] < 1e-4
    # The graphs that were exported for random weights took those that were learnt.
    assert measurements["generation"]["transplanted"] is True
    # The forward engine is the one that is scored.
    assert abs(metrics["precision_gap"]) < 1e-3

    for name, content in bench.scripted.uploaded.items():
        (tmp_path / name).write_bytes(content)
    figures = json.loads(_run(tmp_path))
    assert figures["validation_loss"] == pytest.approx(metrics["validation_loss"], rel=1e-6)
    assert figures["prefill_ms_p50"] > 0 < figures["decode_ms_per_token_p50"]
    for name in ("prefill_ms_p50", "decode_ms_per_token_p50"):
        assert figures["reported"][name] == metrics[name]
    assert _run(tmp_path, "--prompt", "the ", "--tokens", "20").startswith("the ")


def _run(folder: Path, *arguments: str) -> str:
    """What a downloaded `run.py` prints, without this checkout."""
    command = [sys.executable, "-I", str(folder / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout


@pytest.mark.slow
def test_a_trial_generates_from_a_source(bench: Bench) -> None:
    bench.scripted = ScriptedService("seq2seq")
    inference = {"mode": "generate", "batch_size": 2, "new_tokens": 8}
    finish = bench.execute(bench.scripted.lease(training={"steps": 4}, inference=inference))
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("complete", None)
    metrics, measurements = finish["metrics"], finish["measurements"]
    assert set(metrics) >= GENERATED
    # 1 layer, 2 sequences, 2 heads of 8, keys and as many values of 8 tokens and 7 of the source in float32.
    assert metrics["kv_cache_bytes"] == 2 * 2 * 2 * 8 * (8 + 7) * 4
    assert metrics["memory_bytes"] == sum(metrics[f"{name}_bytes"] for name in ("weights", "activation", "io"))
    buckets = measurements["generation"]["decode"]
    assert [(bucket["capacity"], bucket["steps"]) for bucket in buckets] == [(8, 7)]
    assert measurements["parity"]["generation_final"]["worst"] < 1e-4
    assert measurements["generation"]["transplanted"] is True


def test_the_memory_of_all_devices_is_that_of_the_engines_that_generate(tmp_path: Path) -> None:
    said = cast("BuildAnswer", {"engine_bytes": 9, "weights_bytes": 5, "activation_bytes": 3, "io_bytes": 1})
    engine = BuiltEngine(tmp_path, None, said, from_cache=False)
    step = StepEngine(Bucket(capacity=8, steps=4, first=4), tmp_path, engine)
    config = GenerationConfig(batch_size=1, prompt_tokens=4, new_tokens=4, caches=())
    memory = memory_of(GenerationEngines("final", config, tmp_path, engine, (step,), is_transplanted=False))
    assert memory["total_memory_bytes"] == memory["memory_bytes"] == 2 * (5 + 3 + 1)


def test_percentiles_are_of_the_steps_of_a_text_and_not_of_the_samples() -> None:
    samples = [np.linspace(1, 2, 1000).tolist(), np.linspace(11, 12, 10).tolist()]
    many_slow = weighted_percentiles(samples, [1, 9])
    assert 11 < many_slow[50] < 12
    assert weighted_percentiles(samples, [99, 1])[50] < 2
    alone = weighted_percentiles([samples[0]], [7])
    assert alone[50] == pytest.approx(np.percentile(samples[0], 50))
    assert alone[99] == pytest.approx(np.percentile(samples[0], 99), rel=1e-3)


def step_interval(bounds: list[tuple[float, float]], steps: list[int], percentile: int = 50) -> Interval:
    """Of kinds of steps with runs that differ by a percent, whose every percentile is known to the bounds."""
    spread = np.linspace(-0.005, 0.005, 401)
    samples = [(low * 1.01) * (1 + spread) for low, _ in bounds]
    kinds = [
        {each: Interval(float(np.percentile(runs, each)), low, high) for each in PERCENTILES}
        for runs, (low, high) in zip(samples, bounds, strict=True)
    ]
    return weighted_intervals(samples, steps, kinds)[percentile]


def test_steps_that_may_be_slower_are_no_steps_that_may_be_faster() -> None:
    """One of four kinds may take 2.5 times as long: each end comes of the same ends."""
    bounds = [(0.0473, 0.0484), (0.0470, 0.0481), (0.0473, 0.1201), (0.0467, 0.0504)]
    steps = [8, 8, 8, 7]
    median, tail = step_interval(bounds, steps), step_interval(bounds, steps, 90)
    of_lows, of_highs = (np.average([each[end] for each in bounds], weights=steps) for end in (0, 1))
    assert of_lows == pytest.approx(median.low, rel=0.01)
    assert 0.0484 < median.high < of_highs, "half of the steps are still of quick kinds"
    assert 0.11 < tail.high <= 0.1201, "the slowest tenth is not"


def test_steps_are_known_as_well_as_their_kinds_however_much_these_differ() -> None:
    for percentile in PERCENTILES:
        found = step_interval([(0.099, 0.101), (0.198, 0.202), (0.297, 0.303)], [6, 6, 11], percentile)
        assert found.low == pytest.approx(0.99 / 1.0 * found.value, rel=0.02)
        assert found.low < found.value < found.high < 1.02 * found.value


def test_a_text_takes_as_long_as_its_prompt_and_its_steps_at_the_same_ends() -> None:
    found = summed(Interval(5.0, 4.9, 8.0), [Interval(1.0, 0.99, 1.01), Interval(2.0, 1.9, 6.0)], [10, 20])
    assert (found.value, found.low, found.high) == pytest.approx((55, 52.8, 138.1))
    per_s = found.inverse(1000.0 * 30)
    assert (per_s.low, per_s.high) == pytest.approx((30_000 / 138.1, 30_000 / 52.8))
