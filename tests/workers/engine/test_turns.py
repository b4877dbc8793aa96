"""How often the engine child takes the device alone, of an engine that is weighed by the device's own memory."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.engine import __main__ as child
from workers.engine.base import BuildLog, Engine, Footprint, LossSums, TensorSpec
from workers.engine.protocol import RequestError
from workers.engine.turns.arbitration import DEVICE, Turn, make_files

RUNTIME = "weighed"
PARTS = ["loading", "warm_up", "timed", "plain_enqueues"]
QUICK = {"warmup_seconds": 0.0, "seconds": 0.0, "min_runs": 5}
TOKENS = np.arange(12, dtype=np.int32).reshape(3, 4)


class Weighed(Engine):
    """Does nothing, and notes how its process has the device meanwhile."""

    runtime = RUNTIME
    load_turn = "alone"
    device: Path
    done: list[tuple[str, str]]
    fails_at = ""

    def _note(self, what: str) -> None:
        how = "alone" if _is_locked(self.device, fcntl.LOCK_SH) else "shared"
        self.done.append((what, how if _is_locked(self.device, fcntl.LOCK_EX) else "away"))
        if what == self.fails_at:
            raise RequestError("out_of_memory", f"no memory to {what}")

    def memory_by_device(self) -> tuple[int, ...]:
        self._note("weigh")
        return (100 * len(self.done),)

    def _load(self, engine: Path, options: Mapping[str, int]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        self._note("load")
        return (TensorSpec("tokens", TOKENS.dtype, TOKENS.shape),), ()

    def _prepare(self, inputs: Mapping[str, np.ndarray]) -> None:
        self._note("prepare")

    def timed_run(self, prepared: None) -> float:
        self._note("time")
        return 1.0

    def answer(self, prepared: None, inputs: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        self._note("answer")
        return np.zeros((1, 3), np.float32)

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._note("run")
        return {}

    def _close(self) -> None:
        self._note("close")

    def describe(self) -> Any: ...

    def _build(self, onnx: Path, engine: Path, options: Mapping[str, int], log: BuildLog) -> None:
        self.before_timing()
        engine.touch()

    def _footprint(self, engine: Path) -> Footprint:
        return Footprint(0, 0, 0)

    def _attach_loss(self, loss_graph: Path) -> None: ...

    def _loss(self, inputs: Any, targets: np.ndarray, weights: np.ndarray) -> LossSums: ...  # type: ignore[empty-body]


def _is_locked(device: Path, how: int) -> bool:
    """Whether another open file of the device's has a lock beside which there is none of this kind."""
    with Path(f"{device}{DEVICE}").open("rb") as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Bench:
    """The verbs of an engine child, and what they told."""

    def __init__(self, folder: Path) -> None:
        self.device = Weighed.device = folder / "GPU-1"
        self.done: list[tuple[str, str]] = []
        Weighed.done = self.done
        make_files(self.device)
        (folder / "engine").touch()
        np.savez(folder / "in.npz", tokens=TOKENS)
        self._folder = folder
        self.verbs = child.Verbs()
        self.progress: list[dict[str, Any]] = []

    def ask(self, verb: str, **arguments: Any) -> Any:
        request = {"verb": verb, "turns": str(self.device), **arguments}
        return self.verbs.handlers()[verb](request, self.progress.append)

    @property
    def to_load(self) -> dict[str, Any]:
        return {"runtime": RUNTIME, "engine": str(self._folder / "engine"), "options": {}}

    @property
    def to_measure(self) -> dict[str, Any]:
        return {"inputs": str(self._folder / "in.npz"), "options": QUICK}

    @property
    def turns_alone(self) -> list[float]:
        return [told["alone_seconds"] for told in self.progress if "alone_seconds" in told]

    def device_is_free(self) -> bool:
        return not _is_locked(self.device, fcntl.LOCK_EX)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setitem(child.RUNTIMES, RUNTIME, (__name__, "Weighed"))  # type: ignore[arg-type]
    return Bench(tmp_path)


def test_an_engine_is_loaded_and_measured_in_one_turn(bench: Bench) -> None:
    answer = bench.ask("measure", load=bench.to_load, **bench.to_measure)
    assert answer["loaded"] == {"device_memory_bytes": 300}, "load, run and the second look"
    assert answer["measured"]["runs"] == QUICK["min_runs"]
    assert bench.done[0] == ("weigh", "shared"), "a context is made beside others"
    assert [what for what, _ in bench.done[1:5]] == ["weigh", "load", "run", "weigh"]
    assert {how for _, how in bench.done[1:]} == {"alone"}
    (seconds,) = bench.turns_alone
    parts = answer["measured"]["environment"]["alone_seconds"]
    assert list(parts) == PARTS
    assert sum(parts.values()) <= seconds
    assert answer["measured"]["environment"]["waited_seconds"] == 0.0
    assert bench.device_is_free()
    bench.ask("run", inputs=str(bench.device.with_name("in.npz")), outputs=str(bench.device.with_name("out.npz")))
    assert bench.done[-1] == ("run", "shared"), "it stays loaded"


def test_the_first_tokens_of_a_prompt_are_timed_in_the_same_turn(bench: Bench) -> None:
    answer = bench.ask("measure_prompt", load=bench.to_load, **bench.to_measure)
    assert answer["measured"]["time_to_first_token_ms"] > 0
    assert bench.done.count(("answer", "alone")) == QUICK["min_runs"]
    assert len(bench.turns_alone) == 1
    bench.ask("measure_prompt", **bench.to_measure)
    assert bench.done.count(("answer", "alone")) == 2 * QUICK["min_runs"]
    assert len(bench.turns_alone) == 3
    assert bench.device_is_free()


def test_by_two_requests_it_takes_two_turns_and_warms_up_beside_others(bench: Bench) -> None:
    loaded = bench.ask("load", **bench.to_load)
    measured = bench.ask("measure", **bench.to_measure)
    assert loaded == {"device_memory_bytes": 300}
    assert len(bench.turns_alone) == 2
    assert ("prepare", "shared") in bench.done
    assert ("time", "shared") in bench.done
    assert list(measured["environment"]["alone_seconds"]) == PARTS[1:]


def test_a_wait_for_the_device_is_no_time_of_a_build(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weighed, "build_turn", "alone")
    monkeypatch.setattr(Turn, "take", lambda turn: 100.0)
    built = bench.ask("build", **bench.to_load, onnx=str(bench.device.with_name("in.npz")))
    assert {"waited_seconds": 100.0} in bench.progress
    assert built["build_seconds"] == 0.0


@pytest.mark.parametrize("what", ["weigh", "load", "run", "prepare", "time"])
def test_who_fails_within_the_turn_gives_the_device_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(Weighed, "fails_at", what)
    with pytest.raises(RequestError, match=f"no memory to {what}"):
        bench.ask("measure", load=bench.to_load, **bench.to_measure)
    assert bench.device_is_free()
    assert len(bench.turns_alone) == (0 if what == "weigh" else 1)


def test_an_engine_that_cannot_run_is_closed_before_another_is_weighed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Weighed, "fails_at", "run")
    with pytest.raises(RequestError, match="no memory to run"):
        bench.ask("load", **bench.to_load)
    assert bench.done[-1] == ("close", "alone")


def test_what_is_wrong_in_the_request_takes_no_turn(bench: Bench) -> None:
    for load in ("engine", {}, {"runtime": "abacus"}, {**bench.to_load, "engine": ""}, {**bench.to_load, "options": 3}):
        with pytest.raises(RequestError) as refused:
            bench.ask("measure", load=load, **bench.to_measure)
        assert refused.value.kind in ("invalid", "unsupported")
    with pytest.raises(RequestError, match="nowhere"):
        bench.ask("measure", load=bench.to_load, inputs="nowhere", options=QUICK)
    assert not bench.done
