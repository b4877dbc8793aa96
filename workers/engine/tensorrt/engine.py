"""TensorRT on an NVIDIA GPU: versions 8.6, 10 and 11; TensorRT for RTX (rtx.py) adds to it.

Versions are told apart by what the library offers, not by their numbers: a network is strongly typed where that exists,
else (8.6) FP16 is allowed where the graph holds float16. TF32 is off unless asked for. Tactics of cuBLAS and cuDNN are
off, as they are by default from version 10 on: what an engine needs is the library itself.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .. import nvml
from ..base import BuildLog, Engine, Enqueued, Footprint, LossSums, Option, RowWrite, TensorSpec, checked_array
from ..protocol import ErrorKind, RequestError, invalid
from ..verbs import Capabilities, DeviceState, EngineEnvironment
from . import cuda, support
from .build import BUILD_OPTIONS, configured, parsed, readable_graph, small_network
from .log import Complaints, listening, log_of
from .plan_file import PlanFile, is_plan_file, read_plan, write_plan
from .prepared_run import PreparedRun
from .program import Program, cuda_explained
from .scratch import context_without_scratch, scratch_bytes
from .tensors import Buffers, bindings_of, bindings_of_network
from .timing_cache import TimingFile
from .weight_streaming import STREAMING_OPTIONS, allow_streaming, stream_weights

MOST_LAUNCHES_AHEAD = 32

_LOSS_INPUTS = ("logits", "targets", "weights")
_LOSS_OUTPUTS = ("loss_sum", "weight_sum", "correct")


@dataclass
class _Loss:
    program: Program
    buffers: Buffers


class TensorRtEngine(Engine):
    """A TensorRT engine on the first GPU that the process sees."""

    runtime = "tensorrt"
    library: ClassVar[str] = "tensorrt"
    build_options: Mapping[str, Option] = {**BUILD_OPTIONS, **STREAMING_OPTIONS}
    build_turn = "alone"
    untimed_levels = frozenset({0})
    """It takes the first kernel that succeeds: the library says so, builds_beside.py in the benchmarks measured it."""
    load_turn = "alone"
    repeats_when_noisy = 1
    least_share_of_tails = 0.25
    known_harmless_errors = (
        # 8.6 cannot read back the timing entries of a fused subgraph that it has just written; the engine is good.
        "will not be used in tuning",
    )

    def __init__(self) -> None:
        super().__init__()
        self._trt: Any = importlib.import_module(self.library)
        cuda.driver()
        self._log = log_of(self._trt)
        self._opened: cuda.Device | None = None
        self._stream: cuda.Stream | None = None
        self._program: Program | None = None
        self._plan: PlanFile | None = None
        self._buffers: Buffers | None = None
        self._prepared: list[PreparedRun] = []
        self._loss_state: _Loss | None = None
        self._graph_refused: str | None = None
        self._launches_ahead = 1
        self._timings_folder: Path | None = None

    # --- what measuring, memory, loss and the verbs call ------------------------------------------------------------

    def describe(self) -> Capabilities:
        device = self._device
        capability = device.compute_capability
        limits = support.limits(self.runtime, self.version, capability)
        return {
            "runtime": self.runtime,
            "version": self.version,
            "device_model": device.name,
            "opset": limits.opset,
            "dtypes": list(limits.dtypes),
            "quantizations": list(limits.quantizations),
            "devices": 1,
            "device_memory_bytes": device.memory_bytes,
            "compute_capability": ".".join(map(str, capability)),
            "build_only": not limits.runs,
            "build_options": list(limits.build_options),
            "lacks": dict(limits.lacks),
        }

    def warm_up_builder(self) -> None:
        with self._complaints():
            builder = self._builder()
            network = small_network(self._trt, builder)
            config = self._config(builder, network, self._defaults | {"optimization_level": 0})
            self.before_timing()
            builder.build_serialized_network(network, config)

    def keep_timings(self, folder: Path) -> None:
        self._timings_folder = folder

    @property
    def version(self) -> str:
        return str(self._trt.__version__)

    def keep_rows(self, prepared: PreparedRun, writes: Sequence[RowWrite]) -> None:
        program, stream = self._ready()
        program.point(prepared.buffers)
        with cuda_explained("the rows of a step cannot be written"):
            prepared.keep_rows(writes)
            if prepared.graph is not None:
                prepared.graph.close()
            prepared.graph = self._captured(prepared, stream)

    def answer(self, prepared: PreparedRun, inputs: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        _, stream = self._ready()
        prepared.buffers.write(inputs, stream)
        prepared.launch(stream)
        return prepared.buffers.read_one(output, stream)

    def timed_run(self, prepared: PreparedRun) -> float:
        assert self._stream is not None
        if prepared.graph is not None:
            return self._stream.timed(prepared.graph.launch)
        return self.timed_enqueue(prepared).device_ms

    def timed_enqueue(self, prepared: PreparedRun) -> Enqueued:
        """The device's time for kernels that are enqueued one by one, and the host's to enqueue them.

        For small models the host takes longer than the device: as many captured runs go ahead as keep the device busy
        for twice as long as the host took last time, or the figure would be the host's.
        """
        program, stream = self._ready()
        program.point(prepared.buffers)
        graph = prepared.graph
        if graph is None:
            return Enqueued(*stream.timed_with_host(lambda: prepared.enqueue(stream)))
        launches = self._launches_ahead

        def ahead() -> None:
            for _ in range(launches):
                graph.launch()

        device_ms, host_ms = stream.timed_with_host(lambda: prepared.enqueue(stream), ahead)
        self._launches_ahead = min(MOST_LAUNCHES_AHEAD, 1 + math.ceil(2 * host_ms / max(device_ms, 1e-3)))
        return Enqueued(device_ms, host_ms)

    def environment(self) -> EngineEnvironment:
        self.require_loaded()
        assert self._plan is not None
        return {
            "runtime": self.runtime,
            "runtime_version": self.version,
            "device": self._device.name,
            "device_uuid": self._device.uuid,
            "cuda_graph": self._graph_refused is None,
            "cuda_graph_refused": self._graph_refused,
            "waiting": "spin",
            "build_options": dict(self._plan.about["options"]),
        }

    def device_state(self) -> DeviceState:
        return nvml.read(self._device.uuid)

    def memory_in_use(self) -> int:
        return self._device.memory_in_use()

    def leave_device(self) -> None:
        if self._opened is not None:
            self._opened.reset()

    # --- what a runtime writes --------------------------------------------------------------------------------------

    def _build(self, onnx: Path, engine: Path, options: Mapping[str, int], log: BuildLog) -> None:
        self._make_plan(onnx, engine, options, log)

    def _footprint(self, engine: Path) -> Footprint:
        plan = read_plan(engine)
        activation_bytes, weights_bytes = self._weigh(plan)
        return Footprint(weights_bytes or plan.about["weights_bytes"], activation_bytes, plan.about["io_bytes"])

    def _load(self, engine: Path, options: Mapping[str, int]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        device = self._device
        with cuda_explained(f"{engine.name} cannot be loaded"):
            plan = read_plan(engine)
            self._check_origin(plan, engine, device)
            self._stream = cuda.Stream()
            self._program = self._open(plan, engine.name)
            self._plan = plan
        inputs = tuple(binding.spec for binding in self._program.bindings if binding.is_input)
        return inputs, tuple(binding.spec for binding in self._program.bindings if not binding.is_input)

    def _prepare(self, inputs: Mapping[str, np.ndarray]) -> PreparedRun:
        program, stream = self._ready()
        with cuda_explained("inputs and outputs do not fit on the device"):
            buffers = Buffers(program.bindings)
            buffers.write(inputs, stream)
            program.point(buffers)
            program.enqueue(stream)
            stream.wait()
        prepared = PreparedRun(program, buffers)
        prepared.graph = self._captured(prepared, stream)
        self._prepared.append(prepared)
        return prepared

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        program, stream = self._ready()
        with cuda_explained("the engine failed while it ran"):
            buffers = self._own_buffers(program)
            buffers.write(inputs, stream)
            program.point(buffers)
            program.enqueue(stream)
            stream.wait()
            return buffers.read(stream)

    def _attach_loss(self, loss_graph: Path) -> None:
        program, _ = self._ready()
        with cuda_explained("the loss graph cannot be loaded"):
            loss = self._open(self._loss_plan(loss_graph), loss_graph.name)
            given = {binding.spec.name: binding for binding in loss.bindings}
            names = sorted(given)
            if names != sorted((*_LOSS_INPUTS, *_LOSS_OUTPUTS)):
                raise invalid(
                    f"a loss graph takes {', '.join(_LOSS_INPUTS)} and gives {', '.join(_LOSS_OUTPUTS)}; "
                    f"{loss_graph} has {', '.join(names)}"
                )
            logits, wanted = program.logits(), given["logits"]
            if (logits.type_name, logits.spec.shape) != (wanted.type_name, wanted.spec.shape):
                raise invalid(f"the loss graph takes {wanted}; the engine gives {logits}")
            shared = {"logits": self._own_buffers(program)[logits.spec.name]}
            self._loss_state = _Loss(loss, Buffers(loss.bindings, shared))

    def _loss(self, inputs: Mapping[str, np.ndarray], targets: np.ndarray, weights: np.ndarray) -> LossSums:
        loss = self._loss_state
        program, stream = self._ready()
        assert loss is not None
        given = {"targets": targets, "weights": weights}
        specs = {binding.spec.name: binding.spec for binding in loss.program.bindings}
        labels = {name: checked_array(given, specs[name]) for name in given}
        with cuda_explained("the engine or its loss graph failed while it ran"):
            buffers = self._own_buffers(program)
            buffers.write(inputs, stream)
            loss.buffers.write(labels, stream)
            program.point(buffers)
            loss.program.point(loss.buffers)
            program.enqueue(stream)
            loss.program.enqueue(stream)
            stream.wait()
            sums = loss.buffers.read(stream)
        return LossSums(**{name: float(sums[name]) for name in _LOSS_OUTPUTS})

    def _close(self) -> None:
        for prepared in self._prepared:
            prepared.close()
        if self._loss_state is not None:
            self._loss_state.buffers.free()
        if self._buffers is not None:
            self._buffers.free()
        # Contexts before engines: the library asks for it.
        self._loss_state = self._program = self._plan = self._buffers = None
        self._prepared = []
        self._graph_refused = None
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    # --- building ---------------------------------------------------------------------------------------------------

    def _make_plan(self, onnx: Path, engine: Path, options: Mapping[str, int], log: BuildLog) -> None:
        """Parse, build, and write the plan file."""
        graph = readable_graph(self.runtime, self.version, onnx)
        with self._complaints() as complaints:
            builder = self._builder()
            network, parser = parsed(self._trt, self._log, builder, onnx, complaints)
            config = self._config(builder, network, options)
            timings = self._timings()
            cache = timings and timings.attach(config, complaints)
            self.before_timing()
            plan = builder.build_serialized_network(network, config)
            if plan is None:
                raise complaints.failure("build", f"{self.runtime} {self.version} cannot build {onnx.name}")
            about = {
                "runtime": self.runtime,
                "version": self.version,
                "built_for": self._built_for(options),
                "options": dict(options),
                "weights_bytes": graph.nbytes,
                "io_bytes": sum(binding.nbytes for binding in bindings_of_network(network)),
            }
            # The parser owns weights that the network refers to: it lives until here.
            del network, parser
            write_plan(engine, memoryview(plan), about)
        for message in complaints.errors:
            log.error(message)
        if timings is not None and not log.errors:
            timings.keep(cache)

    def _timings(self) -> TimingFile | None:
        """Where this version's timings on this device are kept; None where none are."""
        if self._timings_folder is None or support.no_timing_cache(self.runtime, self.version):
            return None
        origin = {"runtime": self.runtime, "version": self.version, "device": self._device.uuid}
        return TimingFile(self._timings_folder, origin)

    def _builder(self) -> Any:
        _ = self._device
        return self._trt.Builder(self._log)

    def _config(self, builder: Any, network: Any, options: Mapping[str, int]) -> Any:
        config = configured(self._trt, builder, network, options)
        allow_streaming(self._trt, config, options)
        return config

    def _built_for(self, options: Mapping[str, int]) -> str:
        """Where the plan runs: on this very GPU."""
        return self._device.uuid

    # --- loading and running ----------------------------------------------------------------------------------------

    def _check_origin(self, plan: PlanFile, engine: Path, device: cuda.Device) -> None:
        about = plan.about
        if (about["runtime"], about["version"]) != (self.runtime, self.version):
            raise invalid(
                f"{engine.name} was built by {about['runtime']} {about['version']}; this is {self.runtime} "
                f"{self.version}: build it again"
            )
        if about["built_for"] != device.uuid:
            raise invalid(f"{engine.name} was built on {about['built_for']}, this is {device.uuid}: build it again")

    def _open(self, plan: PlanFile, name: str, *, has_scratch: bool = True) -> Program:
        """Deserialize and make a context. Raises RequestError "invalid" or "out_of_memory"."""
        with self._complaints() as complaints:
            engine = self._deserialize(plan)
            if engine is None:
                raise complaints.failure("invalid", f"{name} is no engine that {self.runtime} {self.version} reads")
            context = engine.create_execution_context() if has_scratch else context_without_scratch(self._trt, engine)
            if context is None:
                raise complaints.failure("out_of_memory", f"{name}: there is no memory for an execution context")
        return Program(engine, context, bindings_of(self._trt, engine))

    def _deserialize(self, plan: PlanFile) -> Any:
        engine = self._trt.Runtime(self._log).deserialize_cuda_engine(plan.content)
        if engine is not None:
            stream_weights(engine, plan.about["options"])
        return engine

    def _weigh(self, plan: PlanFile) -> tuple[int | None, int | None]:
        """Scratch memory of one context and, where the library says it, what the weights take; in bytes."""
        with self._complaints() as complaints, cuda_explained("the engine that was just built cannot be loaded"):
            engine = self._deserialize(plan)
            if engine is None:
                raise complaints.failure("build", "the engine that was just built cannot be loaded")
            weights = None
            if hasattr(self._trt, "EngineStat"):
                said = engine.get_engine_stat(self._trt.EngineStat.TOTAL_WEIGHTS_SIZE)
                weights = int(said) if said > 0 else None
        return scratch_bytes(engine), weights

    def _captured(self, prepared: PreparedRun, stream: cuda.Stream) -> cuda.Graph | None:
        """The engine's run as a CUDA graph; None, and the reason kept, where it cannot be captured."""
        with self._complaints() as complaints:
            try:
                return stream.capture(lambda: prepared.enqueue(stream))
            except (cuda.CudaError, RequestError) as problem:
                self._graph_refused = "; ".join((str(problem), *complaints.errors))
        return None

    def _own_buffers(self, program: Program) -> Buffers:
        if self._buffers is None:
            self._buffers = Buffers(program.bindings)
        return self._buffers

    def _loss_plan(self, loss_graph: Path) -> PlanFile:
        """The plan of a loss graph, which may have been built before; else it is built here."""
        if is_plan_file(loss_graph):
            return read_plan(loss_graph)
        made = loss_graph.with_name(f".{loss_graph.name}.{id(self):x}.plan")
        log = BuildLog(self.known_harmless_errors)
        try:
            self._make_plan(loss_graph, made, self._defaults, log)
            if log.errors:
                raise invalid(f"{loss_graph} logged errors while it was built: {'; '.join(log.errors)}")
            return read_plan(made)
        except RequestError as failure:
            kind: ErrorKind = "out_of_memory" if failure.kind == "out_of_memory" else "invalid"
            raise RequestError(kind, f"{loss_graph} is no loss graph: {failure.message}") from failure
        finally:
            made.unlink(missing_ok=True)

    def _ready(self) -> tuple[Program, cuda.Stream]:
        if self._program is None or self._stream is None:
            raise RequestError("internal", "no engine is open")
        return self._program, self._stream

    @property
    def _defaults(self) -> dict[str, int]:
        """Every build option, as it is where none is given."""
        return {name: option.default for name, option in self.build_options.items()}

    @property
    def _device(self) -> cuda.Device:
        if self._opened is None:
            self._opened = cuda.Device()
        return self._opened

    def _complaints(self) -> AbstractContextManager[Complaints]:
        """What the library logs as an error meanwhile, in one list."""
        return listening(self._log)
