"""The engine child: `python -m workers.engine --answers-fd N`. Verbs by JSON lines, see protocol.py.

    describe {runtime}                                  what the runtime can do on this machine
    warm_up {runtime}                                   what a process's first build does beside its own work
    build {runtime, onnx, engine, options, timings}     ONNX file -> engine file, with its sizes; timings: a folder or
                                                        null, where what is found out for later builds is kept
    load {runtime, engine, options}                     engine file -> ready to run, with the memory that it took
    measure {inputs, options, figures?, load?}          latency (latency.py), until the `figures` are known
    measure_prompt {inputs, options, figures?, load?}   the same of a prompt, and the time to its first token
    measure_step {position, options, figures?, load?}   the same of a step at a position, its caches' rows written
    generate {runtime, prefill, steps, inputs, outputs, options}  tokens and logits of a text (generation/text.py), by
                                                        .npz; steps: [{engine, steps}]; no engine is loaded
    run {inputs, outputs}                               outputs for inputs, by .npz
    loss {loss_graph, batches}                          sums of the loss from the engine's outputs (loss.py)
    close {}                                            give the engine back
    leave {}                                            give all back that is on the device, and end without an answer

`build` and `load` take `devices?`: those of an engine that they share, by the names that CUDA_VISIBLE_DEVICES takes,
this process's first; its graph and its engine are files of shards (parallel/).

A measurement may name what to `load` first: {runtime, engine, options, devices?}. It is then answered by {loaded,
measured}. If a load needs the device alone, because of how memory is weighed, both are one turn.

What uses the device takes `turns?`, the device's files (turns/arbitration.py): it is done when it is its turn. Progress
says {waiting} until then, and {waited_seconds} after it (turns/request_turn.py).

A fresh process is used for each engine that is measured: then `device_memory_bytes` of load is what that engine takes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from .arrays import read_arrays, write_arrays
from .base import Engine
from .confidence import KNOWN_WITHIN
from .generation.text import Step, generate
from .generation.timing import first_token_ms, measure_step
from .latency import DEFAULT_FIGURES, DeviceTurn, measure
from .loss import evaluate
from .memory import load_and_weigh
from .parallel.engine import SharedEngine
from .protocol import Handler, JsonObject, Progress, Request, RequestError, Result, invalid, serve
from .turns.pausing import Guards, PausableTurn
from .turns.request_turn import RequestTurn, TurnInHand
from .verbs import BuildAnswer, Capabilities, LoadAnswer, MeasureAnswer, MeasurePromptAnswer

Given = TypeVar("Given")
"""What a measurement reads before it begins."""

Measured = TypeVar("Measured", bound=MeasureAnswer)

Measuring = Callable[[Engine, Given, DeviceTurn | None, DeviceTurn], Measured]
"""Measures the loaded engine on what is given: with the device shared (None: it is had alone already), then alone."""

RUNTIMES: Mapping[str, tuple[str, str]] = {
    "onnxruntime": ("workers.engine.onnxruntime.engine", "OnnxRuntimeEngine"),
    "tensorrt": ("workers.engine.tensorrt.engine", "TensorRtEngine"),
    "tensorrt_rtx": ("workers.engine.tensorrt.rtx", "TensorRtRtxEngine"),
}
"""Runtime -> module and class. The only place that names them: a runtime is a file here and an entry."""

DEVICE_KINDS: Mapping[str, str] = {"onnxruntime": "cpu", "tensorrt": "gpu", "tensorrt_rtx": "gpu"}
"""Runtime -> the kind of device that it runs on."""


@dataclass(frozen=True)
class _ToLoad:
    """What a request wants loaded."""

    engine: Engine
    path: Path
    options: JsonObject


class Verbs:
    """The verbs' handlers; holds one engine at a time."""

    def __init__(self) -> None:
        self._engines: dict[tuple[str, ...], Engine] = {}
        """By runtime, and the devices that share it."""
        self._current: Engine | None = None
        self._guards = Guards()

    def preload(self, runtime: str, turns: str | None = None) -> None:
        """Import a runtime before it is asked for. If that fails, the request says so.

        `turns`: the files of a device that the import computes on, which it shares.
        """
        request = {"runtime": runtime, "turns": turns}
        with (
            contextlib.suppress(RequestError, OSError),
            RequestTurn(request, lambda progress: None, "shared", gives_way=False) as turn,
        ):
            turn.give_way()
            self._engine(request)

    def handlers(self) -> dict[str, Handler]:
        return {
            "describe": self.describe,
            "warm_up": self.warm_up,
            "build": self.build,
            "load": self.load,
            "measure": self.measure,
            "measure_prompt": self.measure_prompt,
            "measure_step": self.measure_step,
            "generate": self.generate,
            "run": self.run,
            "loss": self.loss,
            "close": self.close,
            "leave": self.leave,
        }

    def describe(self, request: Request, progress: Progress) -> Capabilities:
        return self._engine(request).describe()

    def warm_up(self, request: Request, progress: Progress) -> Result:
        engine = self._engine(request)
        with PausableTurn(self._guards, request, progress) as turn:
            engine.before_timing = turn.give_way
            engine.warm_up_builder()
        return {}

    def build(self, request: Request, progress: Progress) -> BuildAnswer:
        engine = self._engine(request)
        if request.get("timings") is not None:
            engine.keep_timings(_path(request, "timings"))
        onnx, built, options = _path(request, "onnx"), _path(request, "engine"), _options(request)
        kind = engine.turn_of_build(options)
        if kind != "stoppable":
            with RequestTurn(request, progress, kind, gives_way=False) as turn:
                engine.before_timing = turn.give_way
                answer = engine.build(onnx, built, options)
            return _without_waits(answer, turn.waited_seconds)
        with PausableTurn(self._guards, request, progress) as pausable:
            engine.before_timing = pausable.give_way
            answer = engine.build(onnx, built, options)
        return _without_waits(answer, pausable.waited_seconds_until(engine.built_at))

    def load(self, request: Request, progress: Progress) -> LoadAnswer:
        wanted = self._to_load(request)
        with self._turn_of_load(request, progress, wanted.engine):
            return self._load(wanted)

    def measure(self, request: Request, progress: Progress) -> Result:
        options, figures = _options(request), _figures(request)
        return self._measured(
            request,
            progress,
            lambda: read_arrays(_path(request, "inputs")),
            lambda engine, inputs, shared, alone: measure(
                engine, inputs, options, figures=figures, shared=shared, alone=alone
            ),
        )

    def measure_prompt(self, request: Request, progress: Progress) -> Result:
        options, figures = _options(request), _figures(request)

        def measured(
            engine: Engine, inputs: Mapping[str, np.ndarray], shared: DeviceTurn | None, alone: DeviceTurn
        ) -> MeasurePromptAnswer:
            # What has the device already keeps it for the first tokens.
            kept = None if shared is None else alone
            found = measure(engine, inputs, options, figures=figures, shared=shared, alone=kept)
            with alone as turn:
                turn.give_way()
                first = first_token_ms(engine, inputs, options)
            bounds = [first.low, first.high]
            return {**found, "time_to_first_token_ms": first.value, "time_to_first_token_interval": bounds}

        return self._measured(request, progress, lambda: read_arrays(_path(request, "inputs")), measured)

    def measure_step(self, request: Request, progress: Progress) -> Result:
        options, figures = _options(request), _figures(request)
        return self._measured(
            request,
            progress,
            lambda: _count(request, "position"),
            lambda engine, position, shared, alone: measure_step(
                engine, position, options, figures=figures, shared=shared, alone=alone
            ),
        )

    def generate(self, request: Request, progress: Progress) -> Result:
        if self._current is not None:
            raise invalid("an engine is loaded: close it first")
        engine, given = self._engine(request), read_arrays(_path(request, "inputs"))
        steps = _steps(request)
        if "tokens" not in given or given["tokens"].ndim != 2:
            raise invalid("a text is generated from `tokens` [B, T]")
        with RequestTurn(request, progress, "shared") as turn:
            turn.give_way()
            prefill, options = _path(request, "prefill"), _options(request)
            text = generate(engine, prefill, steps, given, options, give_way=turn.give_way)
        write_arrays(_path(request, "outputs"), {"tokens": text.tokens, "logits": text.logits})
        return {}

    def run(self, request: Request, progress: Progress) -> Result:
        engine, inputs, outputs = self._loaded(), read_arrays(_path(request, "inputs")), _path(request, "outputs")
        with RequestTurn(request, progress, "shared") as turn:
            turn.give_way()
            found = engine.run(inputs)
        write_arrays(outputs, found)
        return {}

    def loss(self, request: Request, progress: Progress) -> Result:
        engine, loss_graph = self._loaded(), _path(request, "loss_graph")
        batches = read_arrays(_path(request, "batches"))
        with RequestTurn(request, progress, "shared") as turn:
            return {**vars(evaluate(engine, loss_graph, batches, progress, give_way=turn.give_way))}

    def close(self, request: Request, progress: Progress) -> Result:
        if self._current is not None:
            self._current.close()
        self._current = None
        return {}

    def leave(self, request: Request, progress: Progress) -> Result:
        """So the device's memory does not change while another process weighs an engine by it."""
        with RequestTurn(request, progress, "shared") as turn:
            turn.give_way()
            try:
                self.close(request, progress)
                for engine in self._engines.values():
                    engine.leave_device()
            finally:
                os._exit(0)

    def _measured(
        self, request: Request, progress: Progress, read: Callable[[], Given], measuring: Measuring[Given, Measured]
    ) -> Result:
        """Measure the loaded engine, or load one before; each part when it is its turn on the device."""
        if request.get("load") is None:
            engine = self._loaded()
            return _in_turns(request, progress, engine, read(), measuring)
        wanted = self._to_load(_within(request, request["load"], "load"))
        if wanted.engine.load_turn == "alone":
            return self._loaded_and_measured(request, progress, wanted, read(), measuring)
        # What is read takes memory of the process, by whose memory the engine may be weighed.
        with self._turn_of_load(request, progress, wanted.engine):
            loaded = self._load(wanted)
        return {"loaded": loaded, "measured": _in_turns(request, progress, wanted.engine, read(), measuring)}

    def _loaded_and_measured(
        self, request: Request, progress: Progress, wanted: _ToLoad, given: Given, measuring: Measuring[Given, Measured]
    ) -> Result:
        """Both in one turn: for each, all others have to leave the device, which takes longer than either."""
        with self._turn_of_load(request, progress, wanted.engine) as turn:
            started = time.perf_counter()
            loaded = self._load(wanted)
            loading_seconds = time.perf_counter() - started
            answer = measuring(wanted.engine, given, None, TurnInHand(turn))
        environment = answer["environment"]
        environment["alone_seconds"] = {"loading": loading_seconds, **environment["alone_seconds"]}
        if "turns" in request:
            environment["waited_seconds"] = turn.waited_seconds
        return {"loaded": loaded, "measured": answer}

    @contextlib.contextmanager
    def _turn_of_load(self, request: Request, progress: Progress, engine: Engine) -> Generator[RequestTurn]:
        """Have the device as a load needs it. If that fails, the engine gives back what it has opened before the next
        one is weighed."""
        if engine.load_turn == "alone":
            # A context takes long to make, and needs nobody out of the way.
            with RequestTurn(request, progress, "shared") as turn:
                turn.give_way()
                engine.memory_by_device()
        with RequestTurn(request, progress, engine.load_turn, gives_way=False) as turn:
            turn.give_way()
            try:
                yield turn
            except Exception:
                if self._current is None:
                    engine.close()
                raise

    def _load(self, wanted: _ToLoad) -> LoadAnswer:
        grown = load_and_weigh(wanted.engine, wanted.path, wanted.options)
        self._current = wanted.engine
        return {"device_memory_bytes": grown}

    def _to_load(self, request: Request) -> _ToLoad:
        engine = self._engine(request)
        if self._current is not None and self._current is not engine:
            raise invalid("an engine of another runtime is loaded: close it first")
        return _ToLoad(engine, _path(request, "engine"), _options(request))

    def _loaded(self) -> Engine:
        if self._current is None:
            raise invalid("no engine is loaded: send load first")
        return self._current

    def _engine(self, request: Request) -> Engine:
        runtime = request.get("runtime")
        if not isinstance(runtime, str) or runtime not in RUNTIMES:
            raise RequestError("unsupported", f"no runtime {runtime!r} here; there is: {', '.join(RUNTIMES)}")
        key = (runtime, *_devices(request))
        if key not in self._engines:
            self._engines[key] = _opened(*key)
        return self._engines[key]


def _opened(runtime: str, *devices: str) -> Engine:
    """An engine of a runtime, which devices share if some are named. Raises RequestError("unsupported")."""
    if devices:
        return SharedEngine(runtime, devices)
    module, name = RUNTIMES[runtime]
    try:
        return getattr(importlib.import_module(module), name)()
    except (ImportError, OSError) as problem:
        raise RequestError("unsupported", f"{sys.executable} cannot use {runtime}: {problem}") from problem


def _in_turns(
    request: Request, progress: Progress, engine: Engine, given: Given, measuring: Measuring[Given, Measured]
) -> Measured:
    """Measure with the device shared, then alone, each when it is its turn."""
    shared, alone = RequestTurn(request, progress, "shared"), RequestTurn(request, progress, "alone")
    answer = measuring(engine, given, shared, alone)
    if "turns" in request:
        answer["environment"]["waited_seconds"] = shared.waited_seconds + alone.waited_seconds
    return answer


def _without_waits(answer: BuildAnswer, waited_seconds: float) -> BuildAnswer:
    """What a build said of itself, without its waits for the device, which are told as waits."""
    return {**answer, "build_seconds": max(0.0, answer["build_seconds"] - waited_seconds)}


def _path(request: Request, field: str) -> Path:
    value = request.get(field)
    if not isinstance(value, str) or not value or "\0" in value:
        raise invalid(f"{request['verb']} needs {field!r}: the path of a file")
    return Path(value)


def _options(request: Request) -> JsonObject:
    options = request.get("options", {})
    if not isinstance(options, dict):
        raise invalid(f"options is a JSON object, not {options!r}")
    return options


def _devices(request: Request) -> tuple[str, ...]:
    devices = request.get("devices", [])
    if not isinstance(devices, list) or len(devices) == 1 or not all(isinstance(each, str) for each in devices):
        raise invalid(f"devices is {devices!r}; it is a list of the names of at least two devices")
    return tuple(devices)


def _count(request: Request, field: str) -> int:
    value = request.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid(f"{field} is {value!r}; it is an integer of at least 0")
    return value


def _steps(request: Request) -> list[Step]:
    written = request.get("steps")
    if not isinstance(written, list):
        raise invalid(f"steps is {written!r}; it is a list of objects with engine and steps")
    steps = [_within(request, each, "a step") for each in written]
    return [Step(_path(each, "engine"), _count(each, "steps")) for each in steps]


def _within(request: Request, value: object, name: str) -> Request:
    """An object within a request, as a request of the same verb."""
    if not isinstance(value, dict):
        raise invalid(f"{name} is a JSON object, not {value!r}")
    return {**value, "verb": request["verb"]}


def _figures(request: Request) -> list[str]:
    figures = request.get("figures", list(DEFAULT_FIGURES))
    if not isinstance(figures, list) or not all(isinstance(each, str) and each in KNOWN_WITHIN for each in figures):
        raise invalid(f"figures is {figures!r}; it is a list of: {', '.join(KNOWN_WITHIN)}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.engine", description="The engine child of a worker.")
    parser.add_argument("--answers-fd", type=int, required=True, help="descriptor that answers are written to")
    parser.add_argument("--runtime", help="import it at once, for the requests to come")
    parser.add_argument("--turns", help="files of the device that the import computes on, which it shares")
    arguments = parser.parse_args()
    answers_fd: int = arguments.answers_fd
    try:
        os.fstat(answers_fd)
    except OSError:
        parser.error(f"descriptor {answers_fd} is not open")
    verbs = Verbs()
    if arguments.runtime is not None:
        verbs.preload(arguments.runtime, arguments.turns)
    serve(verbs.handlers(), answers_fd)


if __name__ == "__main__":
    main()
