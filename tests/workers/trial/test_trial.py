"""One attempt with real children: its phases, what it reports, and who fails how."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx2
import numpy as np
import pytest
from safetensors.torch import load_file

from layers.capabilities import Capabilities
from layers.metrics import METRICS
from tests.workers.cold_children import ColdChildren
from tests.workers.scripted_service import ScriptedService
from workers.data.cache import DatasetCache
from workers.data.splits import TrialData
from workers.devices.locks import turns_of
from workers.engine.turns.arbitration import alone
from workers.engine_cache import EngineCache
from workers.execution import Execution, SlotContext, WorkerContext
from workers.interruption import DrainedError, Interruption
from workers.processes.child import Child
from workers.processes.children import Children
from workers.service.leased_trial import LeasedTrial
from workers.service.messages import LeaseAnswer
from workers.trial import build, parity, run
from workers.trial.context import Limits, TrialContext
from workers.trial.download import loader
from workers.trial.download.checkout_graph import CheckoutGraph
from workers.trial.load import LoadedEngine
from workers.trial.measuring import measure
from workers.trial.train import Trained

ALL_PHASES = ["check", "build", "measure", "train", "rebuild", "remeasure", "evaluate", "finish"]
TRAINED_FIRST = ["check", "train", "build", "measure", "evaluate", "finish"]
DEVICE = "cpu-here"


class Bench:
    """Executes leases of a scripted service with shared children."""

    def __init__(
        self,
        scripted: ScriptedService,
        children: Children,
        capabilities: Mapping[str, Mapping[str, Any]],
        cache_dir: Path,
    ) -> None:
        self.scripted = scripted
        self.children = children
        self.capabilities = capabilities
        self.interruption = Interruption()
        self._cache_dir = cache_dir

    def execute(self, lease: Mapping[str, Any], *, limits: Limits | None = None) -> dict[str, Any] | None:
        """The finish that the service was offered at last, if any."""
        client = self.scripted.client()
        worker = WorkerContext(
            service=client,
            datasets=DatasetCache(client, self._cache_dir),
            engines=EngineCache(self._cache_dir / "engines"),
            capabilities=cast(Mapping[str, Capabilities], self.capabilities),
            heartbeat_seconds=30,
            limits=limits or Limits(),
        )
        slot = SlotContext(children=self.children, device_uuid=DEVICE)
        Execution(LeasedTrial.of(cast(LeaseAnswer, lease)), worker, slot, self.interruption).run()
        finishes = self.scripted.sent("finish")
        return finishes[-1] if finishes else None


@pytest.fixture
def bench(
    scripted: ScriptedService, children: Children, capabilities: dict[str, dict[str, Any]], cache_dir: Path
) -> Bench:
    return Bench(scripted, children, capabilities, cache_dir)


@pytest.fixture
def interrupted(bench: Bench) -> Iterator[Bench]:
    """A bench for trials that are ended while they are trained, with a torch child that ends with them."""
    children = ColdChildren(threads=1)
    bench.children = children
    yield bench
    children.kill()


TRAINS_AT_ONCE: dict[str, Any] = {"hardware_first": False}


class ScriptedModel(Children):
    """Children of which the torch child is a program of the test."""

    def __init__(self, handlers: str) -> None:
        super().__init__(threads=1)
        self._program = (
            f"import os, signal, sys, time\nfrom workers.engine.protocol import serve\n{handlers}\n"
            "serve({'prepare': prepare}, int(sys.argv[-1]))"
        )
        self.started = 0

    def model(self) -> Child:
        if self._model is None or not self._model.alive():
            self.discard_model()
            self._model = Child([sys.executable, "-c", self._program], name="model")
            self.started += 1
        return self._model


def test_a_trial_is_worked_through_all_phases(bench: Bench) -> None:
    lease = bench.scripted.lease(training={"steps": 30, "eval_every": 10}, constraints=("latency_ms_p99 <= 1e6",))
    finish = bench.execute(lease)
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("complete", None)
    assert bench.scripted.phases() == ALL_PHASES

    metrics, measurements = finish["metrics"], finish["measurements"]
    logged = "".join(report.get("log", "") for report in bench.scripted.sent("report"))
    for taken in ("latency_first", "latency_samples_ms"):
        assert f"measured: latency {measurements[taken]['latency_ms_p50']:,.4f} ms (p50)" in logged
    assert f"memory {metrics['memory_bytes']:,.0f} bytes" in logged
    not_here = {"latency_ms_enqueue_p50", "latency_ms_enqueue_p99", "test_loss", "accuracy"}
    of_replicates = {"trainings", "validation_loss_stderr"}
    generated = {name for name, metric in METRICS.items() if metric.of_generation}
    assert set(metrics) == set(METRICS) - not_here - generated - of_replicates
    assert abs(metrics["precision_gap"]) < 1e-3
    assert metrics["parity_error"] < 1e-4
    assert metrics["validation_loss"] == pytest.approx(metrics["reference_loss"] + metrics["precision_gap"])
    assert metrics["bits_per_byte"] == pytest.approx(metrics["validation_loss"] / np.log(2))
    assert metrics["generalization_gap"] == pytest.approx(metrics["reference_loss"] - metrics["training_loss"])
    of_memory = ("weights_bytes", "activation_bytes", "io_bytes")
    assert metrics["memory_bytes"] == sum(metrics[name] for name in of_memory)
    assert metrics["throughput_per_s"] == pytest.approx(4 * 1000 / metrics["latency_ms_mean"])

    assert metrics["latency_ms_p50"] == measurements["latency_samples_ms"]["latency_ms_p50"]
    samples = measurements["latency_samples_ms"]["samples_ms"]
    assert np.median(samples) == pytest.approx(metrics["latency_ms_p50"], rel=0.05)
    assert measurements["latency_first"]["latency_ms_p50"] > 0
    assert measurements["training"]["steps"] == 30
    assert measurements["training"]["stopped"] == "budget"
    assert measurements["environment"]["intra_op_threads"] == 1
    assert set(measurements["parity"]) == {"first", "final", "tolerance", "tolerance_worst"}
    assert measurements["cost"]["train_seconds"] > 0

    evaluated = {loss["step"]: loss["validation_loss"] for loss in bench.scripted.losses() if "validation_loss" in loss}
    assert list(evaluated) == [10, 20, 30]
    assert min(evaluated.values()) == pytest.approx(measurements["training"]["best_validation_loss"])
    # The scripted validation split is small: the sample that chooses the checkpoint is all of it.
    assert metrics["reference_loss"] == pytest.approx(min(evaluated.values()))


@pytest.mark.slow
def test_a_trial_on_the_front_leaves_what_runs_without_a_service(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an attempt of a confirmation, whose lease names the test split, scores that."""
    scripted = bench.scripted
    scripted.splits["test"] = scripted.splits["training"]
    scripted.wanted = ["weights.safetensors", "model.onnx", "model.engine", "loss.engine", "validation.npz"]
    scripted.wanted += ["configuration.json", "run.py", "what this worker does not know"]
    finish = bench.execute(scripted.lease())
    assert finish is not None
    metrics = finish["metrics"]
    assert 0 < metrics["test_loss"] != metrics["validation_loss"]
    blocks = finish["measurements"]["loss_blocks"]
    assert sum(blocks["test"]["loss_sums"]) / sum(blocks["test"]["weight_sums"]) == pytest.approx(metrics["test_loss"])

    for target, built in finish["measurements"].get("builds", {}).items():
        # For Turing (7.5) the builder of RTX has no float32 products, and says so.
        assert built["built"] is ("7.5" not in target), (target, built)
        assert built["built"] or "FP32" in built["reason"]

    assert set(scripted.uploaded) == set(scripted.wanted[:-1])
    for name, content in scripted.uploaded.items():
        (tmp_path / name).write_bytes(content)
    assert load_file(tmp_path / "weights.safetensors")
    described = json.loads((tmp_path / "configuration.json").read_text())
    monkeypatch.setattr(loader, "MEASURE_SECONDS", 0.05)
    found = loader.measured(tmp_path, described)
    monkeypatch.setattr(loader, "opener", lambda described: partial(CheckoutGraph, described["runtime"]))
    by_checkout = loader.measured(tmp_path, described)
    assert found["validation_loss"] == pytest.approx(metrics["validation_loss"], rel=1e-6)
    assert by_checkout["validation_loss"] == pytest.approx(metrics["validation_loss"], rel=1e-6)


def waits(verb: str, body: dict[str, Any]) -> bool:
    return "waiting_for" in body.get("progress", {})


def measured_beside(
    monkeypatch: pytest.MonkeyPatch, ends: Callable[[ExitStack], None] = lambda neighbour: None
) -> None:
    """A neighbour measures from when the training begins; `ends` runs beside the training, and may end that."""
    train = run.train

    def train_beside_it(context: TrialContext, data: TrialData) -> Trained:
        with ThreadPoolExecutor(1) as thread, ExitStack() as neighbour:
            neighbour.enter_context(alone(turns_of(DEVICE), lambda: None))
            ended = thread.submit(ends, neighbour)
            trained = train(context, data)
            ended.result()
            return trained

    monkeypatch.setattr(run, "train", train_beside_it)


@pytest.mark.slow
def test_the_same_trial_scores_the_same_in_a_new_process_that_yields_to_a_measurement(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = bench.scripted.lease(training={"steps": 10, "dropout": 0.1})
    first = bench.execute(lease)
    assert not any(waits(*call) for call in bench.scripted.calls)
    bench.children.discard_model()

    def once_the_training_waits(neighbour: ExitStack) -> None:
        with neighbour:
            bench.scripted.wait_for(waits)

    measured_beside(monkeypatch, once_the_training_waits)
    again = bench.execute(lease)
    assert first is not None
    assert again is not None
    same = ("validation_loss", "reference_loss", "training_loss", "parameter_count", "weights_bytes")
    assert [first["metrics"][name] for name in same] == [again["metrics"][name] for name in same]
    said = [body["progress"] for verb, body in bench.scripted.calls if waits(verb, body)]
    turn = f"its turn to train on this device, which another worker (process {os.getppid()}) has"
    assert said[0] == {"step": 0, "fraction": 0.0, "waiting_for": turn, "wait_cause": "training_turn"}
    assert first["measurements"]["training"]["paused_seconds"] == 0
    assert again["measurements"]["training"]["paused_seconds"] > 0
    assert first["measurements"]["environment"]["waited_seconds"] == 0


def test_a_broken_hardware_constraint_trains_nothing(bench: Bench) -> None:
    constraints = ("validation_loss <= 0.1", "latency_ms_p50 <= 1e-9", "memory_bytes <= 1e12")
    finish = bench.execute(bench.scripted.lease(constraints=constraints))
    assert finish is not None
    assert finish["outcome"] == "infeasible"
    assert finish["reason"].startswith("latency_ms_p50 <= 1e-9 is broken by ")
    assert "latency_ms_p50 = " in finish["reason"]
    assert bench.scripted.phases() == ["check", "build", "measure", "finish"]
    assert "latency_ms_p50" in finish["metrics"]
    assert "validation_loss" not in finish["metrics"]


@pytest.mark.slow
def test_training_first_builds_and_measures_once_and_finds_the_same(bench: Bench) -> None:
    lease = bench.scripted.lease(training={"steps": 30, "eval_every": 10})
    first = bench.execute(lease | {"rungs": [10, 20]})
    assert bench.scripted.phases() == ALL_PHASES
    reports = bench.scripted.sent("report")
    (measured,) = [index for index, report in enumerate(reports) if "metrics" in report]
    (trained,) = [index for index, report in enumerate(reports) if report.get("phase") == "train"]
    assert measured < trained, "a pruner is told what the untrained model takes of the device"
    assert reports[measured]["metrics"]["latency_ms_p50"] > 0
    bench.scripted.calls.clear()
    second = bench.execute(lease | {"hardware_first": False})
    assert bench.scripted.phases() == TRAINED_FIRST
    assert not any("metrics" in report for report in bench.scripted.sent("report"))
    assert first is not None
    assert second is not None
    for name in LEARNT:
        assert second["metrics"].get(name) == first["metrics"].get(name), name
    assert set(second["metrics"]) == set(first["metrics"])
    measurements = second["measurements"]
    assert set(first["measurements"]) - set(measurements) == {"latency_first"}
    assert set(measurements["parity"]) == {"final", "tolerance", "tolerance_worst"}
    assert measurements["cost"]["engines_from_cache"] == ["final", "loss"], "trained alike, they are the same engine"


def test_a_measurement_knows_the_figures_that_the_sweep_decides_by(bench: Bench) -> None:
    bench.scripted = ScriptedService("probe")
    used = ["validation_loss", "throughput_per_s", "latency_ms_p99", "latency_cv"]
    finish = bench.execute(bench.scripted.lease() | {"metrics_in_use": used})
    assert finish is not None
    figures = finish["measurements"]["environment"]["figures"]
    assert figures == ["latency_ms_mean", "latency_ms_p50", "latency_ms_p99"]


def test_trained_weights_are_put_into_the_first_graph(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str | None, bool]] = []
    write_graph = build.write_graph

    def watched(*arguments: Any) -> Any:
        answer = write_graph(*arguments)
        asked.append((arguments[-1], answer["transplanted"]))
        return answer

    monkeypatch.setattr(build, "write_graph", watched)
    for positions, transplanted in ("rope_gpt_neox", True), ("relative", False):
        model = {"attention.position_embedding_type": positions}
        finish = bench.execute(bench.scripted.lease(model=model, training={"steps": 10}))
        assert finish is not None
        assert (finish["outcome"], finish["reason"]) == ("complete", None)
        assert finish["metrics"]["parity_error"] < 1e-4
        assert asked[-2:] == [("prepare", transplanted), ("use", transplanted)]


@pytest.mark.slow
def test_weights_that_are_another_function_in_the_first_graph_are_exported_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = measure.computes_the_same
    transplanted: list[bool] = []

    def differs(context: TrialContext, engine: LoadedEngine) -> bool:
        transplanted.append(engine.built.is_transplanted)
        return not transplanted[-1] and compared(context, engine)

    monkeypatch.setattr(measure, "computes_the_same", differs)
    finish = bench.execute(bench.scripted.lease(training={"steps": 10}))
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("complete", None)
    assert bench.scripted.phases() == ALL_PHASES
    logged = "".join(report.get("log", "") for report in bench.scripted.sent("report"))
    assert logged.count("exporting again") == 1, "the trained weights are not put into a graph that was wrong"
    assert transplanted == [True, False, False]
    assert logged.count("measured: latency") == 2, "nothing is kept of what was not the model"


def test_a_hardware_constraint_that_training_first_breaks_is_the_service_s_to_judge(bench: Bench) -> None:
    lease = bench.scripted.lease(training={"steps": 5}, constraints=("latency_ms_p50 <= 1e-9",))
    finish = bench.execute(lease | {"hardware_first": False})
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("complete", None)
    assert {"validation_loss", "latency_ms_p50"} <= set(finish["metrics"])


def test_training_first_builds_nothing_of_a_training_that_diverges(bench: Bench) -> None:
    away = {"steps": 300, "learning_rate": 10.0, "min_learning_rate": 10.0, "warmup_steps": 0, "gradient_clip": 0.0}
    finish = bench.execute(bench.scripted.lease(training=away) | {"hardware_first": False})
    assert finish is not None
    assert finish["outcome"] == "pruned"
    assert bench.scripted.phases() == ["check", "train", "finish"]


@pytest.mark.slow
def test_a_stopped_training_goes_on_in_another_attempt_with_the_same_result(bench: Bench) -> None:
    lease = bench.scripted.lease(training={"steps": 400, "eval_every": 200, "dropout": 0.1}) | {"hardware_first": False}
    whole = bench.execute(lease)
    model = bench.children.model()

    def script(verb: str, body: dict[str, Any]) -> httpx2.Response | None:
        if verb != "report" or not body.get("losses"):
            return None
        prune = {"action": "prune", "reason": "hopeless", "keep_training_state": True, "lease_seconds": 30}
        return httpx2.Response(200, json=prune)

    bench.scripted.script = script
    stopped = bench.execute(lease | {"rungs": [20]})
    assert stopped is not None
    assert (stopped["outcome"], stopped["reason"]) == ("pruned", "hopeless")
    assert bench.children.model() is model, "a training that is stopped costs no process"
    steps = stopped["measurements"]["training"]["steps"]
    assert 0 < steps < 400

    bench.scripted.script = lambda verb, body: None
    bench.scripted.calls.clear()
    bench.interruption = Interruption()
    digest = hashlib.sha256(bench.scripted.uploaded["training_state.pt"]).hexdigest()
    ended = bench.execute(lease | {"attempt": 2, "training_state": {"sha256": digest}})
    assert whole is not None
    assert ended is not None
    assert min(loss["step"] for loss in bench.scripted.losses()) > steps
    for name in ("validation_loss", "reference_loss", "training_loss"):
        assert ended["metrics"][name] == whole["metrics"][name], "bit for bit"


def test_what_the_target_lacks_is_infeasible_before_anything_is_made(bench: Bench) -> None:
    bench.children = ScriptedModel("def prepare(request, progress): return {}")
    finish = bench.execute(bench.scripted.lease(model={"dtype": "float16"}))
    assert finish is not None
    assert finish["outcome"] == "infeasible"
    assert "does not run float16" in finish["reason"]
    assert bench.children.started == 0


LEARNT = ("validation_loss", "reference_loss", "precision_gap", "training_loss", "generalization_gap", "accuracy")


@pytest.mark.parametrize("task", ["classification", "seq2seq"])
def test_every_task_with_data_is_worked_through_all_phases(bench: Bench, task: str) -> None:
    bench.scripted = ScriptedService(task)
    training = {"steps": 60, "batch_size": 16, "learning_rate": 1e-2, "eval_every": 20}
    finish = bench.execute(bench.scripted.lease(training=training, constraints=("accuracy >= 0.1",)))
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("complete", None)
    assert bench.scripted.phases() == ALL_PHASES
    metrics = finish["metrics"]
    assert set(LEARNT) <= set(metrics)
    assert "bits_per_byte" not in metrics
    assert abs(metrics["precision_gap"]) < 1e-3
    assert metrics["parity_error"] < 1e-4
    choices = {"classification": 2, "seq2seq": 9}[task]
    assert metrics["validation_loss"] < np.log(choices), "it is better than guessing"
    assert metrics["accuracy"] > 1 / choices
    assert metrics["validation_loss"] == pytest.approx(metrics["reference_loss"] + metrics["precision_gap"])
    best = finish["measurements"]["training"]["best_validation_loss"]
    assert metrics["reference_loss"] == pytest.approx(best), "the small validation split is judged as a whole"


@pytest.mark.slow
def test_a_custom_mask_comes_from_the_data(bench: Bench) -> None:
    bench.scripted = ScriptedService("classification")
    finish = bench.execute(bench.scripted.lease(model={"attention.attention_mask_type": "custom_mask"}))
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("complete", None)


PROBES = {
    "block": {},
    "attention": {"attention.cross_attention": True, "attention.attention_mask_type": "padding"},
    "mlp": {"attention.num_attention_heads": None, "mlp.kind": "FusedGatedMLP"},
    "linear": {
        "hidden_size": None,
        "attention.num_attention_heads": None,
        "linear.in_features": 24,
        "linear.out_features": 40,
    },
    "norm": {"attention.num_attention_heads": None, "norm.kind": "RmsNorm"},
    "embedding": {"attention.num_attention_heads": None, "embedding.num_embeddings": 100},
}


@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_is_built_and_measured_and_that_is_all(bench: Bench, kind: str) -> None:
    bench.scripted = ScriptedService("probe")
    finish = bench.execute(bench.scripted.lease(model={"kind": kind, **PROBES[kind]}))
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("complete", None)
    assert bench.scripted.phases() == ["check", "build", "measure", "finish"]
    assert bench.scripted.sent("download") == []
    metrics, measurements = finish["metrics"], finish["measurements"]
    assert not set(LEARNT) & set(metrics)
    assert "train_seconds" not in metrics
    assert metrics["latency_ms_p50"] == measurements["latency_samples_ms"]["latency_ms_p50"]
    assert metrics["parity_error"] < 1e-4
    assert metrics["memory_bytes"] > 0
    # A norm and a look-up are no matrix products.
    assert (metrics["flops"] > 0) is (kind not in ("norm", "embedding"))
    assert metrics["parameter_count"] > 0


def test_a_probe_that_breaks_a_hardware_constraint_is_infeasible(bench: Bench) -> None:
    bench.scripted = ScriptedService("probe")
    finish = bench.execute(bench.scripted.lease(constraints=("latency_ms_p50 <= 1e-9",)))
    assert finish is not None
    assert finish["outcome"] == "infeasible"


def test_data_that_does_not_fit_the_model_fails_the_trial_with_why(bench: Bench) -> None:
    bench.scripted = ScriptedService("classification")
    lease = bench.scripted.lease()
    lease["configuration"]["inference"]["sequence_length"] = 16
    finish = bench.execute(lease)
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("failed", "the rows have 12 tokens, the model takes 16")


def test_a_text_shorter_than_a_window_fails_the_trial(bench: Bench) -> None:
    lease = bench.scripted.lease(training={"sequence_length": 40_000})
    finish = bench.execute(lease)
    assert finish is not None
    assert finish["outcome"] == "failed"
    assert "need at least 40001" in finish["reason"]


def test_a_diverging_training_is_pruned_with_its_reason(bench: Bench) -> None:
    away = {"steps": 300, "learning_rate": 10.0, "min_learning_rate": 10.0, "warmup_steps": 0, "gradient_clip": 0.0}
    finish = bench.execute(bench.scripted.lease(training=away))
    assert finish is not None
    assert finish["outcome"] == "pruned"
    assert finish["reason"].startswith("diverged at step ")
    assert bench.scripted.phases()[-2:] == ["train", "finish"]
    assert finish["metrics"]["latency_ms_p50"] > 0


def test_patience_ends_the_training_and_the_trial_goes_on(bench: Bench) -> None:
    rising = {"steps": 100_000, "learning_rate": 0.3, "min_learning_rate": 0.3, "warmup_steps": 60}
    finish = bench.execute(bench.scripted.lease(training={**rising, "eval_every": 5, "patience": 2}))
    assert finish is not None
    assert finish["outcome"] == "complete"
    assert finish["measurements"]["training"]["stopped"] == "patience"
    assert any("no new best validation loss" in report.get("log", "") for report in bench.scripted.sent("report"))


def test_an_engine_that_is_another_function_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parity.TOLERANCES, "float32", 0.0)
    finish = bench.execute(bench.scripted.lease())
    assert finish is not None
    assert finish["outcome"] == "failed"
    assert finish["reason"].startswith("parity: ")
    assert bench.scripted.phases() == ["check", "build", "measure", "finish"]
    of_build = {"build_seconds", "engine_bytes", "weights_bytes", "activation_bytes", "io_bytes"}
    of_load = {"device_memory_bytes", "memory_bytes", "total_memory_bytes"}
    assert set(finish["metrics"]) == of_build | of_load | {
        *("parity_error", "parity_error_worst", "parameter_count", "flops", "device_seconds")
    }
    assert set(finish["measurements"]) == {"cost", "parity"}
    assert finish["noise"] == {}
    assert not any("metrics" in report for report in bench.scripted.sent("report"))
    logged = "".join(report.get("log", "") for report in bench.scripted.sent("report"))
    assert "measured: latency" not in logged


def test_what_is_not_measured_is_compared_and_scored_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = bench.scripted.lease(training={"steps": 5}) | {"hardware_first": False, "measure": False}
    finish = bench.execute(lease)
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("complete", None)
    assert bench.scripted.phases() == ["check", "train", "build", "evaluate", "finish"]
    assert {"parity_error", "validation_loss"} <= set(finish["metrics"])
    assert "latency_ms_p50" not in finish["metrics"]
    monkeypatch.setitem(parity.TOLERANCES, "float32", 0.0)
    wrong = bench.execute(lease)
    assert wrong is not None
    assert wrong["reason"].startswith("parity: ")
    assert "validation_loss" not in wrong["metrics"]


def test_a_child_that_crashes_twice_fails_the_trial(bench: Bench) -> None:
    children = ScriptedModel(
        "def prepare(request, progress):\n"
        "    print('stack smashed', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)"
    )
    bench.children = children
    finish = bench.execute(bench.scripted.lease())
    children.kill()
    assert finish is not None
    assert finish["outcome"] == "failed"
    assert finish["reason"] == "the model process was ended by SIGSEGV, 2 times: stack smashed"
    assert "stack smashed" in finish["log"]
    assert children.started == 2


def test_a_hung_child_fails_the_trial(bench: Bench) -> None:
    children = ScriptedModel("def prepare(request, progress): time.sleep(600)")
    bench.children = children
    finish = bench.execute(bench.scripted.lease(), limits=replace(Limits(), prepare_seconds=0.3))
    children.kill()
    assert finish is not None
    assert finish["outcome"] == "failed"
    assert "`prepare` of the model process was not done within 0.3 s: it hung" in finish["reason"]


@pytest.mark.parametrize(
    ("kind", "words"), [("out_of_memory", "out of memory: no more"), ("build", "the engine cannot be built: no more")]
)
def test_an_error_that_would_happen_again_fails_at_once(bench: Bench, kind: str, words: str) -> None:
    children = ScriptedModel(
        "from workers.engine.protocol import RequestError\n"
        f"def prepare(request, progress): raise RequestError({kind!r}, 'no more')"
    )
    bench.children = children
    finish = bench.execute(bench.scripted.lease())
    children.kill()
    assert finish is not None
    assert (finish["outcome"], finish["reason"]) == ("failed", words)


def test_a_child_killed_from_outside_gives_the_trial_back_charged(interrupted: Bench) -> None:
    def script(verb: str, body: dict[str, Any]) -> httpx2.Response | None:
        if body.get("losses"):
            os.kill(interrupted.children.model().pid, signal.SIGKILL)
        return None

    interrupted.scripted.script = script
    assert interrupted.execute(interrupted.scripted.lease(training={"steps": 1_000_000}) | TRAINS_AT_ONCE) is None
    (release,) = interrupted.scripted.sent("release")
    assert release == {"reason": "the model process was ended by SIGKILL, from outside", "charge": True}


def test_a_child_killed_between_two_requests_gives_the_trial_back_charged(
    interrupted: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one is started only for the next trial: it would hold no model."""
    export = build.write_graph

    def of_a_killed_child(context: TrialContext, *arguments: Any) -> Any:
        process = context.children.model().pid
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        return export(context, *arguments)

    monkeypatch.setattr(build, "write_graph", of_a_killed_child)
    assert interrupted.execute(interrupted.scripted.lease()) is None
    (release,) = interrupted.scripted.sent("release")
    assert release == {"reason": "the model process was ended by SIGKILL, from outside", "charge": True}


@pytest.mark.parametrize(
    ("status", "body"),
    [(409, {"detail": "attempt 2"}), pytest.param(404, {"detail": "no such trial"}, marks=pytest.mark.slow)],
)
def test_a_lease_lost_in_training_throws_the_result_away(interrupted: Bench, status: int, body: dict[str, Any]) -> None:
    pids: list[int] = []

    def script(verb: str, report: dict[str, Any]) -> httpx2.Response | None:
        if report.get("losses"):
            pids.append(interrupted.children.model().pid)
            return httpx2.Response(status, json=body)
        return None

    interrupted.scripted.script = script
    assert interrupted.execute(interrupted.scripted.lease(training={"steps": 1_000_000}) | TRAINS_AT_ONCE) is None
    assert interrupted.scripted.sent("release") == []
    assert not os.path.exists(f"/proc/{pids[0]}")  # noqa: PTH110


def test_a_drain_in_training_gives_the_trial_back_uncharged(interrupted: Bench) -> None:
    def script(verb: str, body: dict[str, Any]) -> httpx2.Response | None:
        if body.get("losses"):
            interrupted.interruption.set(DrainedError("the worker was asked to stop"))
        return None

    interrupted.scripted.script = script
    assert interrupted.execute(interrupted.scripted.lease(training={"steps": 1_000_000}) | TRAINS_AT_ONCE) is None
    assert interrupted.scripted.sent("release") == [{"reason": "the worker was asked to stop", "charge": False}]


def test_a_service_that_restarts_while_the_result_is_sent_gets_it(bench: Bench) -> None:
    tries = threading.Semaphore(2)

    def script(verb: str, body: dict[str, Any]) -> httpx2.Response | None:
        if verb == "finish" and tries.acquire(blocking=False):
            raise httpx2.ConnectError("connection refused")
        return None

    bench.scripted.script = script
    finish = bench.execute(bench.scripted.lease(constraints=("latency_ms_p50 <= 1e-9",)))
    assert finish is not None
    assert len(bench.scripted.sent("finish")) == 3


def test_a_result_that_the_service_refuses_ends_the_trial_with_why(bench: Bench) -> None:
    def script(verb: str, body: dict[str, Any]) -> httpx2.Response | None:
        refused = verb == "finish" and body["outcome"] != "failed"
        return httpx2.Response(422, json={"detail": "unknown metrics"}) if refused else None

    bench.scripted.script = script
    finish = bench.execute(bench.scripted.lease(constraints=("latency_ms_p50 <= 1e-9",)))
    assert finish is not None
    assert finish["outcome"] == "failed"
    assert "unknown metrics" in finish["reason"]


@pytest.mark.parametrize(("step", "cause"), [("export", "build_turn"), ("measure", "measurement_turn")])
def test_an_export_or_a_measurement_that_waits_for_its_turn_can_be_cancelled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str, cause: str
) -> None:
    bench.scripted = ScriptedService("probe")
    cancel = httpx2.Response(200, json={"action": "cancel"})
    bench.scripted.script = lambda verb, body: cancel if waits(verb, body) else None
    work = getattr(run, step)
    with ExitStack() as neighbour:

        def work_beside_it(*arguments: object) -> object:
            neighbour.enter_context(alone(turns_of(DEVICE), lambda: None))
            return work(*arguments)

        monkeypatch.setattr(run, step, work_beside_it)
        assert bench.execute(bench.scripted.lease(model={"kind": "norm", **PROBES["norm"]})) is None
    causes = [body["progress"].get("wait_cause") for verb, body in bench.scripted.calls if waits(verb, body)]
    assert set(causes) == {cause}
    assert bench.scripted.sent("release") == [{"reason": "cancelled", "charge": False}]


def test_a_training_that_waits_is_given_back_by_a_drain(interrupted: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def script(verb: str, body: dict[str, Any]) -> httpx2.Response | None:
        if waits(verb, body):
            interrupted.interruption.set(DrainedError("the worker was asked to stop"))
        return None

    interrupted.scripted.script = script
    measured_beside(monkeypatch)
    assert interrupted.execute(interrupted.scripted.lease() | TRAINS_AT_ONCE) is None
    assert interrupted.scripted.sent("release") == [{"reason": "the worker was asked to stop", "charge": False}]
