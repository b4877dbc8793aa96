"""ONNX Runtime on the CPU.

The engine file is the graph as ONNX Runtime optimized it for this machine (all optimization levels), in ONNX's own
format; it is loaded with optimization off, so that what was built is what runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime

from .. import machine, onnx_file
from ..base import (
    BuildLog,
    Engine,
    Footprint,
    LossSums,
    Option,
    RowWrite,
    TensorSpec,
    checked_array,
    describe_specs,
)
from ..protocol import RequestError, invalid
from ..verbs import Capabilities, EngineEnvironment
from .arena import ScratchArena
from .session import (
    ERROR,
    bind,
    bind_values,
    copy_of,
    explained,
    listen,
    listening,
    open_session,
    room_for,
    session_options,
    to_stderr,
)
from .session import tensor_specs as specs_of

_OPSETS = range(7, 65)
"""Those tried by `describe`."""

QUANTIZED_OPERATOR = "DequantizeLinear"

SPLITS_QUANTIZED = ("MatMulAddFusion",)
"""An optimization that joins a quantized product with its bias to one of floats, before it is seen to be quantized."""

_LOSS_OUTPUTS = ["loss_sum", "weight_sum", "correct"]


@dataclass
class LoadedSession:
    """An open session, and how many threads it computes with."""

    session: onnxruntime.InferenceSession
    threads: int


@dataclass
class _PreparedRun:
    """A binding, its tensors by name, and what is copied after a run: rows of outputs, to places in inputs."""

    binding: onnxruntime.IOBinding
    inputs: dict[str, onnxruntime.OrtValue]
    outputs: dict[str, onnxruntime.OrtValue]
    copies: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)


@dataclass
class _Loss:
    session: onnxruntime.InferenceSession
    logits: onnxruntime.OrtValue
    logits_name: str
    inputs: dict[str, TensorSpec]


class OnnxRuntimeEngine(Engine):
    """An ONNX Runtime session on the CPU."""

    runtime = "onnxruntime"
    load_options: Mapping[str, Option] = MappingProxyType({"threads": Option(default=1, minimum=1, maximum=1024)})
    build_turn = "shared"
    load_turn = "shared"

    def __init__(self) -> None:
        super().__init__()
        self._loaded_state: LoadedSession | None = None
        self._loss_state: _Loss | None = None
        listen(to_stderr)

    def describe(self) -> Capabilities:
        return {
            "runtime": self.runtime,
            "version": onnxruntime.__version__,
            "device_model": machine.cpu_model(),
            "opset": _highest_opset(),
            "dtypes": ["float32"],
            "quantizations": ["int8"],
            "devices": 1,
            "device_memory_bytes": machine.usable_memory_bytes(),
            "compute_capability": None,
            "build_only": False,
            "build_options": [],
            "lacks": {
                "dtype float16": "ONNX Runtime gains nothing from it on a CPU (docs/measuring.md)",
                "dtype bfloat16": "ONNX Runtime has no bfloat16 attention on a CPU",
                "dtype tf32": "a format of NVIDIA tensor cores",
                "quantization fp8": "a CPU has no fp8 products: ONNX Runtime would compute them in float32",
            },
        }

    def timed_run(self, prepared: _PreparedRun) -> float:
        run, binding, copies = self._session.run_with_iobinding, prepared.binding, prepared.copies
        started = time.perf_counter_ns()
        run(binding)
        for place, row in copies:
            place[...] = row
        return (time.perf_counter_ns() - started) / 1e6

    def keep_rows(self, prepared: _PreparedRun, writes: Sequence[RowWrite]) -> None:
        # What `numpy()` gives of a tensor on the CPU is the tensor's own memory.
        prepared.copies = [
            (prepared.inputs[each.cache].numpy()[:, :, each.slot], prepared.outputs[each.output].numpy()[:, :, 0])
            for each in writes
        ]

    def answer(self, prepared: _PreparedRun, inputs: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        for name, array in inputs.items():
            prepared.inputs[name].update_inplace(array)
        self._session.run_with_iobinding(prepared.binding)
        return prepared.outputs[output].numpy()

    def environment(self) -> EngineEnvironment:
        self.require_loaded()
        return {
            "runtime": self.runtime,
            "runtime_version": onnxruntime.__version__,
            "device": "cpu",
            "intra_op_threads": self._state.threads,
            "inter_op_threads": 1,
            "execution": "sequential",
            "spinning": False,
        }

    def _build(self, onnx: Path, engine: Path, options: Mapping[str, int], log: BuildLog) -> None:
        def note(severity: int, message: str) -> None:
            if severity >= ERROR:
                log.error(message)

        settings = session_options(threads=1, optimize=True)
        settings.optimized_model_filepath = str(engine)
        settings.add_session_config_entry("session.save_model_format", "ONNX")
        self.before_timing()
        with listening(note), explained("build", f"ONNX Runtime cannot build {onnx.name}"):
            without = SPLITS_QUANTIZED if QUANTIZED_OPERATOR in onnx_file.operators(onnx) else ()
            session = open_session(onnx, settings, without=without)
        specs_of(session.get_inputs(), "build")
        specs_of(session.get_outputs(), "build")
        if onnx_file.weights(engine).external:
            raise RequestError(
                "unsupported",
                f"{onnx.name} keeps weights in a second file; an engine of ONNX Runtime is one file of at most 2 GB: "
                "export the weights inside the graph",
            )

    def _footprint(self, engine: Path) -> Footprint:
        arena = ScratchArena.shared()
        with explained("build", "the engine that was just built does not run"):
            session = arena.open(engine)
            activation_bytes = arena.scratch_bytes(session)
        specs = (*specs_of(session.get_inputs(), "build"), *specs_of(session.get_outputs(), "build"))
        return Footprint(onnx_file.weights(engine).nbytes, activation_bytes, sum(spec.nbytes for spec in specs))

    def _load(self, engine: Path, options: Mapping[str, int]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        with explained("invalid", f"{engine} is no engine that ONNX Runtime reads (cut off? build it again)"):
            session = open_session(engine, session_options(options["threads"], optimize=False))
        inputs, outputs = specs_of(session.get_inputs(), "invalid"), specs_of(session.get_outputs(), "invalid")
        self._loaded_state = LoadedSession(session, options["threads"])
        return inputs, outputs

    def _prepare(self, inputs: Mapping[str, np.ndarray]) -> _PreparedRun:
        copies = {name: copy_of(array) for name, array in inputs.items()}
        outputs = {spec.name: room_for(spec) for spec in self.outputs}
        return _PreparedRun(bind_values(self._session, copies, outputs), copies, outputs)

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = {spec.name: room_for(spec) for spec in self.outputs}
        with explained("internal", "the engine failed while it ran"):
            self._execute(inputs, outputs)
        return {name: np.array(value.numpy()) for name, value in outputs.items()}

    def _execute(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, onnxruntime.OrtValue]) -> None:
        """Run with copies of the inputs, once."""
        self._session.run_with_iobinding(bind(self._session, inputs, outputs))

    def _attach_loss(self, loss_graph: Path) -> None:
        with explained("invalid", f"{loss_graph} is no loss graph that ONNX Runtime reads"):
            session = open_session(loss_graph, session_options(self._state.threads, optimize=True))
        inputs = {spec.name: spec for spec in specs_of(session.get_inputs(), "invalid")}
        outputs = sorted(spec.name for spec in specs_of(session.get_outputs(), "invalid"))
        if sorted(inputs) != ["logits", "targets", "weights"] or outputs != sorted(_LOSS_OUTPUTS):
            raise invalid(
                f"a loss graph takes logits, targets and weights and gives {', '.join(_LOSS_OUTPUTS)}; "
                f"{loss_graph} takes {', '.join(inputs)} and gives {', '.join(outputs)}"
            )
        logits, wanted = self._logits(), inputs["logits"]
        if (logits.dtype, logits.shape) != (wanted.dtype, wanted.shape):
            raise invalid(f"the loss graph takes {wanted}; the engine gives {logits}")
        self._loss_state = _Loss(session, room_for(logits), logits.name, inputs)

    def _loss(self, inputs: Mapping[str, np.ndarray], targets: np.ndarray, weights: np.ndarray) -> LossSums:
        loss = self._loss_state
        assert loss is not None
        given = {"targets": targets, "weights": weights}
        labels = {name: checked_array(given, loss.inputs[name]) for name in given}
        sums = {name: room_for(TensorSpec(name, np.dtype(np.float32), ())) for name in _LOSS_OUTPUTS}
        others = {spec.name: room_for(spec) for spec in self.outputs if spec.name != loss.logits_name}
        with explained("internal", "the engine or its loss graph failed while it ran"):
            self._execute(inputs, {loss.logits_name: loss.logits, **others})
            binding = bind(loss.session, labels, sums)
            binding.bind_ortvalue_input("logits", loss.logits)
            loss.session.run_with_iobinding(binding)
        return LossSums(**{name: float(value.numpy()) for name, value in sums.items()})

    def _close(self) -> None:
        self._loaded_state = self._loss_state = None

    @property
    def _state(self) -> LoadedSession:
        if self._loaded_state is None:
            raise RequestError("internal", "the engine has no session")
        return self._loaded_state

    @property
    def _session(self) -> onnxruntime.InferenceSession:
        return self._state.session

    def _logits(self) -> TensorSpec:
        named = [spec for spec in self.outputs if spec.name == "logits"]
        if not named and len(self.outputs) != 1:
            raise invalid(f"which output are the logits? The engine gives {describe_specs(self.outputs)}")
        return named[0] if named else self.outputs[0]


def _highest_opset() -> int:
    """The highest opset whose models load without an error or a warning. ONNX Runtime does not say it: it is tried."""
    highest = 0
    for opset in _OPSETS:
        complaints: list[str] = []
        with listening(lambda severity, message, found=complaints: found.append(message)):
            try:
                model = onnx_file.chain_model(("Identity",), (1,), opset=opset)
                open_session(model, session_options(threads=1, optimize=False))
            except Exception as problem:  # noqa: BLE001 - ONNX Runtime's exceptions have no base of their own
                complaints.append(str(problem))
        if complaints:
            break
        highest = opset
    return highest
