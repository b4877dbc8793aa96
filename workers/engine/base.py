"""What an engine is: the contract that every runtime keeps, whatever it is made of.

A runtime is one file with one class derived from `Engine` and one entry in `RUNTIMES` of `__main__.py`; the suite
tests/workers/engine/test_contract.py says whether it is one. Public methods check arguments and state; a runtime writes
the methods whose names begin with an underscore. Measuring, memory and loss (latency.py, memory.py, loss.py) use the
public methods only and never ask which runtime it is.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from .machine import process_private_bytes
from .protocol import RequestError, invalid
from .verbs import BuildAnswer, Capabilities, DeviceState, EngineEnvironment

TurnKind = Literal["alone", "shared"]
"""How a piece of work has the device: by itself, or with others that share it (turns/arbitration.py)."""
BuildTurn = Literal["alone", "shared", "stoppable"]
"""`stoppable`: shared, and the builder is stopped while others have the device (turns/pausing.py)."""


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of an engine: all shapes are static."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype.name} {list(self.shape)}"


@dataclass(frozen=True)
class RowWrite:
    """After a run, the one row of `output` along ROW_AXIS is written to a slot of the input `cache` along it."""

    output: str
    cache: str
    slot: int


ROW_AXIS = 2
"""Of the keys in a cache [B, K, S, H]: B sequences, K heads, S keys, H head size."""


@dataclass(frozen=True)
class Option:
    """A target option: an integer within bounds."""

    default: int
    minimum: int
    maximum: int


@dataclass(frozen=True)
class Footprint:
    """What a built engine needs, in bytes. `activation_bytes` is the scratch memory of one execution context."""

    weights_bytes: int
    activation_bytes: int | None
    """None if a runtime builds for a device that is not here"""
    io_bytes: int


@dataclass(frozen=True)
class Enqueued:
    """One run without a captured graph: the device's time, and how long the host took to enqueue it."""

    device_ms: float
    host_ms: float


@dataclass(frozen=True)
class LossSums:
    """Sums over one batch, each target weighted by its weight. `loss_sum` in nats, `correct` counts argmax hits."""

    loss_sum: float
    weight_sum: float
    correct: float


@dataclass
class BuildLog:
    """Errors that a runtime logged while it built: an engine that comes with one is not trusted.

    TensorRT, for one, can log an error and return an engine that computes something else. `known_harmless` holds parts
    of messages that a runtime is known to log as errors although the engine is good; each has its reason beside it.
    """

    known_harmless: tuple[str, ...] = ()
    errors: list[str] = field(default_factory=list)

    def error(self, message: str) -> None:
        if not any(harmless in message for harmless in self.known_harmless):
            self.errors.append(message)


class Engine(ABC):
    """One model on one device: build it, or load a built one and run it; then close.

    States: new -> loaded -> closed (which is new again). `build` works in the state new. A method called out of order
    raises RequestError("invalid"); a model that cannot be built raises "build", too little memory "out_of_memory",
    a thing that this version or device lacks "unsupported". An instance belongs to one thread.
    """

    runtime: str
    build_options: Mapping[str, Option] = MappingProxyType({})
    load_options: Mapping[str, Option] = MappingProxyType({})
    known_harmless_errors: ClassVar[tuple[str, ...]] = ()
    repeats_when_noisy: int = 0
    """How often a noisy measurement is made again. 0 on a CPU that other programs use: a second says no more."""
    least_share_of_tails: float = 1.0
    """Share of the time before which no measurement of a tail stops. All of it on a CPU: other programs come in bursts,
    and a calm part between two says nothing of them."""
    build_turn: BuildTurn | None = None
    """How the device is had from `before_timing` to the end of a build: alone if the builder times kernels there,
    shared if it only computes there. None: not at all."""
    untimed_levels: frozenset[int] = frozenset()
    """Values of `optimization_level` at which the builder compares no times: such a build is stoppable."""
    load_turn: TurnKind | None = None
    """The same while an engine is loaded: alone if `memory_in_use` counts what other processes take, too."""

    def __init__(self) -> None:
        self.before_timing: Callable[[], object] = lambda: None
        """Called by a build before it times kernels on the device, or uses it otherwise."""
        self.built_at = 0.0
        """When the last build had written its engine, of the monotonic clock. It is weighed after that."""
        self._loaded = False
        self._loss_attached = False
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()

    # --- what measuring, memory, loss and the verbs call ------------------------------------------------------------

    @abstractmethod
    def describe(self) -> Capabilities:
        """What this runtime can do on this machine. Works in any state."""

    def turn_of_build(self, options: Mapping[str, object]) -> BuildTurn | None:
        """How a build with these options has the device."""
        return "stoppable" if options.get("optimization_level") in self.untimed_levels else self.build_turn

    def warm_up_builder(self) -> None:  # noqa: B027 - most runtimes' first builds take no longer than later ones
        """Do what the first build of a process does beside its own work. Uses the device after `before_timing`."""

    def keep_timings(self, folder: Path) -> None:  # noqa: B027 - most runtimes time nothing while they build
        """Keep in `folder` what a runtime finds out about its own kernels while it builds, for the builds to come."""

    def build(self, onnx: Path, engine: Path, options: Mapping[str, object]) -> BuildAnswer:
        """Build the engine file from an ONNX file.

        The engine file is whole or not there: it is written beside its place and renamed. Every error that the runtime
        logs meanwhile fails the build, unless `known_harmless_errors` names it.
        """
        if self._loaded:
            raise invalid("an engine is loaded in this process: close it before building another")
        chosen = checked_options(options, self.build_options, "build")
        if not onnx.is_file():
            raise invalid(f"there is no ONNX file {onnx}")
        if not engine.parent.is_dir():
            raise invalid(f"there is no folder {engine.parent} to write the engine to")
        part = engine.with_name(f".{engine.name}.{os.getpid()}.part")
        log = BuildLog(self.known_harmless_errors)
        try:
            started = time.perf_counter()
            self._build(onnx, part, chosen, log)
            seconds, self.built_at = time.perf_counter() - started, time.monotonic()
            if log.errors:
                raise RequestError("build", f"{self.runtime} logged errors while it built: {'; '.join(log.errors)}")
            footprint = self._footprint(part)
            size = part.stat().st_size
            part.replace(engine)
        except (RequestError, OSError) as failure:
            # A runtime that writes the file itself does not say why it could not.
            left = shutil.disk_usage(engine.parent).free
            if left > onnx.stat().st_size and getattr(failure, "errno", None) != errno.ENOSPC:
                raise
            raise RequestError(
                "build", f"the disk is full: {left:,} bytes are left in {engine.parent}: {failure}"
            ) from failure
        finally:
            part.unlink(missing_ok=True)
        return {
            "engine_bytes": size,
            "weights_bytes": footprint.weights_bytes,
            "activation_bytes": footprint.activation_bytes,
            "io_bytes": footprint.io_bytes,
            "build_seconds": seconds,
        }

    def load(self, engine: Path, options: Mapping[str, object]) -> None:
        """Make a built engine ready to run; sets `inputs` and `outputs`."""
        if self._loaded:
            raise invalid("an engine is loaded already: close it first")
        chosen = checked_options(options, self.load_options, "load")
        if not engine.is_file():
            raise invalid(f"there is no engine file {engine}")
        self.inputs, self.outputs = self._load(engine, chosen)
        self._loaded = True

    def prepare(self, inputs: Mapping[str, np.ndarray]) -> Any:
        """Put one set of inputs where the device reads them, with room for the outputs; for `timed_run`."""
        return self._prepare(self.checked_inputs(inputs))

    def keep_rows(self, prepared: Any, writes: Sequence[RowWrite]) -> None:
        """Let each run of a prepared set write rows of its outputs into its own inputs, on the device: it is part of
        what `timed_run` times. Before the first run of the set. Raises RequestError("unsupported") if it cannot."""
        raise RequestError("unsupported", f"{self.runtime} keeps no rows: it does not generate texts")

    def answer(self, prepared: Any, inputs: Mapping[str, np.ndarray], output: str) -> np.ndarray:
        """Run a prepared set with other inputs, and bring one output to the host; as somebody is served who waits.

        The array is valid until the next run. It is called in a tight loop: no checks.
        """
        raise RequestError("unsupported", f"{self.runtime} does not answer: it does not generate texts")

    @abstractmethod
    def timed_run(self, prepared: Any) -> float:
        """Run a prepared set; return the device time of that run in milliseconds, by the device's best clock.

        Neither transfers nor allocations of inputs and outputs are in it. It is called in a tight loop: no checks.
        """

    def timed_enqueue(self, prepared: Any) -> Enqueued | None:
        """Run a prepared set without the captured graph that `timed_run` launches; None if there is none."""
        return None

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for inputs of exactly the engine's names, dtypes and shapes."""
        return self._run(self.checked_inputs(inputs))

    def attach_loss(self, loss_graph: Path) -> None:
        """Take the ONNX graph that turns this engine's logits, targets and weights into sums, to run after it.

        Its inputs are `logits`, `targets`, `weights`; its outputs `loss_sum`, `weight_sum`, `correct`. The logits stay
        on the device. Attaching another replaces it.
        """
        self.require_loaded()
        if not loss_graph.is_file():
            raise invalid(f"there is no loss graph {loss_graph}")
        self._attach_loss(loss_graph)
        self._loss_attached = True

    def loss(self, inputs: Mapping[str, np.ndarray], targets: np.ndarray, weights: np.ndarray) -> LossSums:
        """The attached loss graph's sums for one batch."""
        if not self._loss_attached:
            raise invalid("no loss graph is attached")
        return self._loss(self.checked_inputs(inputs), targets, weights)

    def environment(self) -> EngineEnvironment:
        """How the loaded engine runs: what belongs beside a measurement (threads, modes, device state)."""
        return {"runtime": self.runtime}

    def device_state(self) -> DeviceState:
        """Clocks, temperature and the like of the device now; empty if it does not say."""
        return {}

    def memory_in_use(self) -> int:
        """Bytes that the device reports in use by this process; on the CPU, the process's private memory."""
        return process_private_bytes()

    def memory_by_device(self) -> tuple[int, ...]:
        """The same of each device that the engine is spread over."""
        return (self.memory_in_use(),)

    def leave_device(self) -> None:  # noqa: B027 - a CPU's memory is the process's
        """Give back what the process itself has on the device, before it ends. Nothing works after it."""

    def close(self) -> None:
        """Give everything back. Harmless when nothing is loaded."""
        if self._loaded:
            self._close()
        self._loaded = self._loss_attached = False
        self.inputs = self.outputs = ()

    # --- what a runtime writes --------------------------------------------------------------------------------------

    @abstractmethod
    def _build(self, onnx: Path, engine: Path, options: Mapping[str, int], log: BuildLog) -> None:
        """Write the engine file. Every logged error goes to `log`."""

    @abstractmethod
    def _footprint(self, engine: Path) -> Footprint:
        """What the engine file that was just built needs."""

    @abstractmethod
    def _load(self, engine: Path, options: Mapping[str, int]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Load, and return inputs and outputs."""

    @abstractmethod
    def _prepare(self, inputs: Mapping[str, np.ndarray]) -> Any: ...

    @abstractmethod
    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def _attach_loss(self, loss_graph: Path) -> None: ...

    @abstractmethod
    def _loss(self, inputs: Mapping[str, np.ndarray], targets: np.ndarray, weights: np.ndarray) -> LossSums: ...

    @abstractmethod
    def _close(self) -> None: ...

    # --- shared checks ----------------------------------------------------------------------------------------------

    def require_loaded(self) -> None:
        """Raise unless an engine is loaded."""
        if not self._loaded:
            raise invalid("no engine is loaded: send load first")

    def checked_inputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs, contiguous and in the engine's order; raises if a name, dtype or shape is not the engine's."""
        self.require_loaded()
        checked = {spec.name: checked_array(inputs, spec) for spec in self.inputs}
        if unknown := sorted(set(inputs) - set(checked)):
            raise invalid(f"the engine has no input {', '.join(unknown)}; it takes {describe_specs(self.inputs)}")
        return checked


def checked_array(arrays: Mapping[str, np.ndarray], spec: TensorSpec) -> np.ndarray:
    """The array that `spec` describes, contiguous."""
    if spec.name not in arrays:
        raise invalid(f"the input {spec} is missing; given: {', '.join(sorted(arrays)) or 'nothing'}")
    array = arrays[spec.name]
    if array.dtype != spec.dtype or array.shape != spec.shape:
        raise invalid(f"{spec.name} is {array.dtype.name} {list(array.shape)}; the engine takes {spec}")
    return np.ascontiguousarray(array)


def checked_options(options: Mapping[str, object], known: Mapping[str, Option], verb: str) -> dict[str, int]:
    """Options with defaults filled in. An option that would do nothing is an error."""
    chosen = {name: option.default for name, option in known.items()}
    for name, value in options.items():
        if name not in known:
            raise invalid(f"{verb} has no option {name!r} here; it has: {', '.join(known) or 'none'}")
        option = known[name]
        if isinstance(value, bool) or not isinstance(value, int) or not option.minimum <= value <= option.maximum:
            raise invalid(f"{name} is {value!r}; it is an integer from {option.minimum} to {option.maximum}")
        chosen[name] = value
    return chosen


def describe_specs(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(map(str, specs))
