"""Hostile conditions, by injected faults: each ends its trial with the reason, and the worker's next trial succeeds.

The children are the real ones with some functions replaced, which fail while a file says so: the builder hangs, dies,
lacks memory or disk, logs an error, writes half an engine, or an engine of another function. On a machine with a GPU
and TensorRT they fail in the same way there, and the GPU's memory is taken by another process in truth.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workers.faulty_children import PROGRAMS, FaultyChildren
from tests.workers.scripted_service import ScriptedService
from workers.data.cache import DatasetCache
from workers.devices.locks import turns_of
from workers.engine.turns.arbitration import Turn
from workers.engine_cache import EngineCache
from workers.execution import Execution, SlotContext, WorkerContext
from workers.interruption import Interruption
from workers.service.leased_trial import LeasedTrial
from workers.trial import run
from workers.trial.context import Limits
from workers.trial.record import TrialRecord


@pytest.fixture(scope="module", params=["onnxruntime", pytest.param("tensorrt", marks=pytest.mark.gpu)])
def runtime(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def faulty(runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyChildren]:
    children = FaultyChildren(tmp_path_factory.mktemp("faulty"), runtime)
    yield children
    children.kill()


@pytest.fixture(scope="module")
def capabilities(faulty: FaultyChildren, runtime: str) -> dict[str, Any]:
    return faulty.builder().request("describe", {"runtime": runtime}, timeout_seconds=120)


DEVICE = "device-here"

PROBE = {"kind": "norm", "norm.kind": "RmsNorm", "attention.num_attention_heads": None}
"""It is built and measured, and that is all: the least that a builder can fail at."""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hang", "was not done within 1 s: it hung and was ended"),
        ("logged error", r"the engine cannot be built: \w+ logged errors while it built: .*Error Code 4"),
        ("truncated", r"final\.engine is (no engine that ONNX Runtime reads \(|).*cut off"),
        ("disk at build", r"the engine cannot be built: .*(the disk is full|No space left)"),
        ("every axis", "parity: the engine's logits are off by "),
        pytest.param("disk at export", "No space left on device", marks=pytest.mark.slow),
        pytest.param("crash", "the build process was ended by SIGSEGV, 2 times", marks=pytest.mark.slow),
        pytest.param("memory at build", "out of memory: the builder asked for 80 GiB", marks=pytest.mark.slow),
        pytest.param("memory at load", r"out of memory: final\.engine: there is no memory", marks=pytest.mark.slow),
    ],
)
def test_a_fault_in_building_fails_its_trial_and_not_the_next(fault: str, reason: str, bench: Bench) -> None:
    failed, next_one = bench.two_trials(fault, ScriptedService("probe"), model=PROBE)
    assert failed["outcome"] == "failed"
    assert re.search(reason, failed["reason"]), failed["reason"]
    assert (next_one["outcome"], next_one["reason"]) == ("complete", None)


@pytest.mark.slow
def test_too_little_memory_in_training_fails_its_trial_and_not_the_next(bench: Bench) -> None:
    failed, next_one = bench.two_trials("memory at training", ScriptedService(), training={"steps": 2})
    assert failed["outcome"] == "failed"
    assert failed["reason"].startswith("out of memory: `train`: ")
    assert failed["metrics"]["latency_ms_p50"] > 0, "what was measured before is kept"
    assert (next_one["outcome"], next_one["reason"]) == ("complete", None)


def test_a_wait_that_fails_is_over(bench: Bench) -> None:
    bench.arm("memory in a wait")
    failed = bench.trial(ScriptedService("probe"), {"model": PROBE})
    assert failed["reason"] == "out of memory: no memory for another thread"
    assert failed["measurements"]["waits"]["build_turn"] > 0


@pytest.mark.parametrize(("size", "said"), [(1 << 57, "Unable to allocate 1.00 EiB"), (None, "of the worker itself")])
def test_inputs_that_the_machine_has_no_memory_for_are_no_error_of_the_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int | None, said: str
) -> None:
    def lay_out(context: object) -> None:
        if size is None:
            raise MemoryError
        np.empty(size)

    monkeypatch.setattr(run, "lay_out_probe_inputs", lay_out)
    failed = bench.trial(ScriptedService("probe"), {"model": PROBE})
    assert failed["outcome"] == "failed"
    assert failed["reason"].startswith(f"out of memory: {said}")
    assert failed["log"] == "", "no traceback"


@pytest.mark.slow
def test_an_engine_without_what_was_learnt_is_noticed_after_the_rebuild(bench: Bench) -> None:
    learning = {"steps": 30, "learning_rate": 1e-2}
    failed, next_one = bench.two_trials("untrained", ScriptedService(), training=learning)
    assert failed["outcome"] == "failed"
    assert failed["reason"].startswith("parity: the engine's logits are off by ")
    assert "validation_loss" not in failed["metrics"], "it is no score of this model"
    assert "latency_samples_ms" not in failed["measurements"], "it is no latency of this model"
    first = failed["measurements"]["latency_first"]
    assert failed["metrics"]["latency_ms_p50"] == first["latency_ms_p50"]
    assert (next_one["outcome"], next_one["reason"]) == ("complete", None)


def test_a_trial_whose_load_needs_the_device_alone_has_it_so_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[str] = []
    add_more_seconds = TrialRecord.add_more_seconds

    def counted(self: TrialRecord, work: str, seconds: float) -> None:
        turns.append(work)
        add_more_seconds(self, work, seconds)

    monkeypatch.setattr(TrialRecord, "add_more_seconds", counted)
    bench.arm("weighed by the device")
    finish = bench.trial(ScriptedService("probe"), {"model": PROBE})
    assert (finish["outcome"], finish["reason"]) == ("complete", None)
    assert turns == ["alone_measurement_turn"]
    cost = finish["measurements"]["cost"]
    assert set(cost["alone"]) == {"loading", "warm_up", "remeasuring", "plain_enqueues"}
    assert sum(cost["alone"].values()) <= cost["alone_measurement_turn_seconds"] + 0.001, "rounded"


def test_what_was_built_before_is_not_built_again(bench: Bench) -> None:
    """A builder that is asked for anything in the second trial hangs."""
    first, again = bench.two_trials("none", ScriptedService("probe"), model=PROBE, then="hang")
    assert (first["outcome"], again["outcome"]) == ("complete", "complete")
    assert first["measurements"]["cost"]["engines_from_cache"] == []
    assert again["measurements"]["cost"]["engines_from_cache"] == ["final"]


@contextmanager
def _held_by_another(all_but_bytes: int) -> Iterator[None]:
    """Meanwhile another process holds the GPU's memory, all but so many bytes."""
    command = [sys.executable, str(PROGRAMS / "gpu_hog.py"), str(all_but_bytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hog:
        assert hog.stdin is not None
        assert hog.stdout is not None
        assert hog.stdout.readline() == b"held\n"
        yield
        hog.stdin.close()


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", ["tensorrt"], indirect=True)
def test_memory_that_another_process_holds_fails_what_needs_it_and_not_the_next(bench: Bench) -> None:
    probe, text = ScriptedService("probe"), ScriptedService()
    assert bench.trial(probe, {"model": PROBE})["outcome"] == "complete"
    with _held_by_another(64 << 20):
        at_context = bench.trial(probe, {"model": PROBE})
        at_build = bench.trial(probe, {"model": {**PROBE, "hidden_size": 4096}, "inference": {"batch_size": 512}})
    assert at_context["measurements"]["cost"]["engines_from_cache"] == ["final"]
    with _held_by_another(4 << 30):
        wide = {"model": {"hidden_size": 256}, "training": {"batch_size": 1 << 14, "steps": 2}}
        at_training = bench.trial(text, wide)
    for failed in (at_context, at_build, at_training):
        assert failed["outcome"] == "failed"
        assert "out of memory" in failed["reason"], failed["reason"]
    assert at_training["metrics"]["latency_ms_p50"] > 0
    assert bench.trial(text, {})["outcome"] == "complete"


class Bench:
    """A worker's children and caches, over several trials."""

    def __init__(self, children: FaultyChildren, capabilities: dict[str, Any], cache_dir: Path) -> None:
        self._children = children
        self._capabilities = capabilities
        self._cache_dir = cache_dir

    def two_trials(
        self, fault: str, service: ScriptedService, *, then: str = "none", **sections: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """How a trial ends while the children have the fault, and how the same one ends with another after that."""
        self._children.arm(fault)
        first = self.trial(service, sections, Limits(build_seconds=1) if fault == "hang" else Limits())
        self._children.arm(then)
        return first, self.trial(service, sections)

    def trial(self, service: ScriptedService, sections: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """How a trial ends."""
        self.execute(service, sections, limits)
        return service.sent("finish")[-1]

    def arm(self, fault: str) -> None:
        self._children.arm(fault)

    def execute(self, service: ScriptedService, sections: dict[str, Any], limits: Limits | None = None) -> None:
        """Execute a trial, however it ends."""
        client, runtime = service.client(), self._capabilities["runtime"]
        misread = self._children.armed() == "every axis" and runtime == "tensorrt"
        capabilities = {**self._capabilities, "device_model": "here"} | ({"opset": 18} if misread else {})
        worker = WorkerContext(
            service=client,
            datasets=DatasetCache(client, self._cache_dir),
            engines=EngineCache(self._cache_dir / "engines"),
            capabilities={runtime: capabilities},
            heartbeat_seconds=30,
            limits=limits or Limits(),
        )
        slot = SlotContext(children=self._children, device_uuid=DEVICE)
        leased = LeasedTrial.of(service.lease(**sections) | {"runtime": runtime, "target_key": f"{runtime} here"})
        Execution(leased, worker, slot, Interruption()).run()


@pytest.fixture
def bench(faulty: FaultyChildren, capabilities: dict[str, Any], cache_dir: Path) -> Bench:
    return Bench(faulty, capabilities, cache_dir)


def test_an_engine_killed_while_it_is_measured_gives_the_trial_back_and_holds_no_device(bench: Bench) -> None:
    """The last one: the other children end with it."""
    service = ScriptedService("probe")
    bench.arm("killed while it is measured")
    bench.execute(service, {"model": PROBE})
    (release,) = service.sent("release")
    assert release == {"reason": "the engine process was ended by SIGKILL, from outside", "charge": True}
    assert not service.sent("finish")
    with Turn(turns_of(DEVICE), lambda: None, alone=True) as turn:
        assert turn.take() == 0.0, "nobody has it"
