"""ONNX Runtime's sessions on the CPU as this project uses them, and what ONNX Runtime says while they work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ..base import TensorSpec
from ..protocol import ErrorKind, RequestError

INFO, WARNING, ERROR = 1, 2, 3
"""Severities of ONNX Runtime's messages that are told apart here."""

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}

_EXPECTED = "Serializing optimized model"
"""Warned of at every build: an engine is for the machine that built it."""

Log = Callable[[int, str], None]
"""Takes a message's severity and text."""


def session_options(threads: int, *, optimize: bool) -> onnxruntime.SessionOptions:
    """Sequential execution on a fixed number of threads that do not spin; all optimizations or none."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = WARNING
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_session(
    model: Path | bytes, options: onnxruntime.SessionOptions, *, without: Sequence[str] = ()
) -> onnxruntime.InferenceSession:
    """A session on the CPU; `without` names optimizations that are left out."""
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
    )


def tensor_specs(nodes: Sequence[Any], kind: ErrorKind) -> tuple[TensorSpec, ...]:
    """What a session takes or gives. Raises RequestError of that kind if a shape is open."""
    specs: list[TensorSpec] = []
    for node in nodes:
        if node.type not in DTYPES:
            raise RequestError("unsupported", f"{node.name} is a {node.type}; engines take {', '.join(DTYPES)}")
        if not all(isinstance(size, int) for size in node.shape):
            raise RequestError(kind, f"{node.name} has the open shape {node.shape}: export with static shapes")
        specs.append(TensorSpec(node.name, np.dtype(DTYPES[node.type]), tuple(node.shape)))
    return tuple(specs)


def room_for(spec: TensorSpec) -> onnxruntime.OrtValue:
    """Memory for a tensor, allocated (and so aligned) by ONNX Runtime."""
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(spec.shape), spec.dtype.type)


def bind(
    session: onnxruntime.InferenceSession,
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, onnxruntime.OrtValue],
) -> onnxruntime.IOBinding:
    """A binding of copies of the inputs (whose memory it keeps alive) and of the given room for the outputs."""
    return bind_values(session, {name: copy_of(array) for name, array in inputs.items()}, outputs)


def copy_of(array: np.ndarray) -> onnxruntime.OrtValue:
    """The array in memory of ONNX Runtime's own."""
    value = room_for(TensorSpec("", array.dtype, array.shape))
    value.update_inplace(array)
    return value


def bind_values(
    session: onnxruntime.InferenceSession,
    inputs: Mapping[str, onnxruntime.OrtValue],
    outputs: Mapping[str, onnxruntime.OrtValue],
) -> onnxruntime.IOBinding:
    """A binding of the given memory."""
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding


@contextmanager
def explained(kind: ErrorKind, what: str) -> Generator[None]:
    """Turn ONNX Runtime's exceptions into an answer of that kind, or of a better one if the message tells."""
    try:
        yield
    except (RequestError, MemoryError):
        raise
    except Exception as problem:
        text = str(problem).strip()
        lowered = text.lower()
        if any(hint in lowered for hint in ("bad_alloc", "failed to allocate memory", "available memory of")):
            kind = "out_of_memory"
        elif any(hint in lowered for hint in ("not_implemented", "*guarantees* support", "unsupported model ir")):
            kind = "unsupported"
        raise RequestError(kind, f"{what}: {text}") from problem


@contextmanager
def listening(log: Log, severity: int = WARNING) -> Generator[None]:
    """Meanwhile send what ONNX Runtime logs, at this severity and above, to `log` as well as to stderr."""

    def both(level: int, message: str) -> None:
        log(level, message)
        to_stderr(level, message)

    listen(both, severity)
    try:
        yield
    finally:
        listen(to_stderr)


def listen(log: Log, severity: int = WARNING) -> None:
    """Send what ONNX Runtime logs to `log`. Raises ImportError if this version cannot."""
    if not hasattr(onnxruntime, "set_default_logger_callback"):
        raise ImportError(f"onnxruntime {onnxruntime.__version__} is too old; install 1.32 or later")
    onnxruntime.set_default_logger_callback(
        lambda level, category, identity, location, message: log(level, message), severity
    )


def to_stderr(severity: int, message: str) -> None:
    """Where messages go that nobody else asked for; below warnings they are dropped."""
    if severity >= WARNING and not message.startswith(_EXPECTED):
        sys.stderr.write(f"onnxruntime: {message}\n")
