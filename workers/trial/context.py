"""What every step of one attempt works with: the trial, the lease that keeps it, and the worker's means."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from layers.capabilities import Capabilities
from layers.configuration import TrialConfiguration
from layers.declarations import dtypes, quantization
from layers.declarations.inference.parameters import InferenceConfig
from layers.declarations.inference.shapes import NamedShape
from layers.metrics import split_name
from layers.parameter import Scalar
from layers.signature import Signature, signature_of
from workers.data.cache import DatasetCache
from workers.device_lock import turns_of
from workers.device_memory import MemoryShare
from workers.device_time import DeviceShare
from workers.engine.protocol import Answer, JsonObject, Progress, Verb
from workers.engine_cache import EngineCache
from workers.interruption import Interruption, InterruptionError
from workers.processes.builder import Builder
from workers.processes.child import Child
from workers.processes.children import Children
from workers.processes.model_verbs import PREPARE
from workers.service.lease import Lease
from workers.service.leased_trial import LeasedDataset
from workers.trial.artifacts import ArtifactStore
from workers.trial.files import AttemptFiles
from workers.trial.record import TrialRecord
from workers.waits import TURNS, Waits

ALONE: Mapping[str, str] = {"load": "loading", "build": "tactic_timing", "train": "training"}
"""Request that may have the device alone -> what for. A measurement says itself for how long what of it had."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a request to a child may take, in seconds, before the child counts as hung. Waits for a turn on the
    device are not in it."""

    prepare_seconds: float = 300
    export_seconds: float = 600
    build_seconds: float = 600
    load_seconds: float = 120
    run_seconds: float = 120
    measure_seconds: float = 120
    evaluate_seconds: float = 3600
    silence_seconds: float = 300
    """Of a training or an evaluation by the engine, which have no end that is known before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialContext:
    """The same for all steps of an attempt. What the steps find goes to `record`; what they pass on is returned."""

    trial: str
    runtime: str
    target_key: str
    configuration: TrialConfiguration
    constraints: Sequence[str]
    hardware_first: bool
    """Whether the untrained model is built and measured before anything is trained."""
    measures: bool
    """Whether the trained model is measured: not where it is one more training of a measured configuration."""
    metrics_in_use: Sequence[str]
    """Of the sweep's objectives and constraints."""
    rungs: Sequence[int]
    """Steps of the training at which the service judges whether it is worth going on."""
    dataset: LeasedDataset | None
    """None: a probe has none."""
    lease: Lease
    """Keeps the attempt and carries its reports."""
    capabilities: Capabilities
    """Of the target that the trial is for."""
    files: AttemptFiles
    children: Children
    datasets: DatasetCache
    engines: EngineCache
    device_uuid: str
    share: DeviceShare
    """Of the device's time."""
    waits: Waits
    memory: MemoryShare
    """Of the device's memory."""
    limits: Limits
    training_state: str | None = None
    """The SHA-256 of the state in which a pruner had stopped the training; None: it begins anew."""
    artifacts: ArtifactStore | None = None
    """Where the files of a trial on the front go; None keeps none."""
    record: TrialRecord = field(default_factory=TrialRecord)
    shape: str | None = None
    """The shape that the steps are done at, of several; None if the sweep names none, or at all of them."""
    is_scored: bool = True
    """Whether the engine at this shape is the one that scores the validation split: of several the first's is."""

    def at_shapes(self) -> tuple[TrialContext, ...]:
        """The attempt at each shape, the first one first; the attempt itself where the sweep names none."""
        return tuple(map(self._at, self.configuration.shapes)) or (self,)

    def _at(self, shape: NamedShape) -> TrialContext:
        is_first = shape == self.configuration.shapes[0]
        return replace(
            self,
            configuration=self.configuration.at(shape),
            files=self.files if is_first else self.files.of_shape(shape.name),
            metrics_in_use=[
                name for name, at in map(split_name, self.metrics_in_use) if at is None or at == shape.name
            ],
            record=self.record.at(shape.name),
            shape=shape.name,
            is_scored=is_first,
        )

    @property
    def interruption(self) -> Interruption:
        return self.lease.interruption

    @property
    def task(self) -> str:
        return self.configuration.task

    @property
    def is_probe(self) -> bool:
        """Whether it has no data and learns nothing."""
        return self.task == "probe"

    @property
    def model(self) -> Mapping[str, Scalar]:
        return self.configuration.model

    @property
    def inference(self) -> InferenceConfig:
        return self.configuration.inference

    @property
    def batch_size(self) -> int:
        """Of inference."""
        return self.inference.batch_size

    @property
    def signature(self) -> Signature:
        """Of the model at the shape that is measured."""
        return signature_of(self.configuration)

    @property
    def dtypes(self) -> set[str]:
        """Those of the model and its layers."""
        return set(dtypes.by_parameter(self.model).values())

    @property
    def quantization(self) -> str:
        return quantization.of_model(self.model)

    @property
    def is_quantized(self) -> bool:
        return self.quantization != quantization.NONE

    @property
    def rank_devices(self) -> tuple[str, ...]:
        """Of a model that devices share, the device of each rank; of others none."""
        size = int(self.model.get("tp_size") or 1)
        return self.children.rank_devices[:size] if size > 1 else ()

    @property
    def turns(self) -> Path:
        """The device's turns, for the children that take them."""
        return turns_of(self.device_uuid)

    def request(
        self,
        child: Child | Builder,
        verb: Verb[Answer],
        arguments: Mapping[str, object],
        *,
        timeout_seconds: float | None = None,
        silence_seconds: float | None = None,
        on_progress: Progress | None = None,
        stops_for: type[InterruptionError] | None = None,
    ) -> Answer:
        """Ask a child, when it is its turn on the device, until it answers or the attempt is interrupted.

        `stops_for`: what only stops the verb early, as of `Child.request`.
        """
        cause = TURNS.get(verb, "evaluation_turn")

        def heard(progress: JsonObject) -> None:
            if progress.pop("waiting", False):
                self.waits.begin(cause, progress, holder=progress.pop("holder", None))
            elif progress.pop("waited_seconds", 0.0):
                self.waits.end(progress)
            elif alone_seconds := progress.pop("alone_seconds", 0.0):
                self.record.add_more_seconds(f"alone_{cause}", alone_seconds)
                if verb in ALONE:
                    self.record.add_alone(ALONE[verb], alone_seconds)
            elif on_progress is not None:
                on_progress(progress)

        try:
            return child.request(
                verb,
                {**arguments, "turns": str(self.turns)},
                timeout_seconds=timeout_seconds,
                silence_seconds=silence_seconds,
                on_progress=heard,
                interruption=self.interruption,
                stops_for=stops_for,
            )
        finally:
            # It may have failed, or died, while it waited.
            self.waits.end()

    def request_model(self, verb: Verb[Answer], arguments: Mapping[str, object], timeout_seconds: float) -> Answer:
        """Ask the torch child: to make the model, or whatever holds it since then."""
        child = self.children.model() if verb == PREPARE else self.children.prepared_model()
        return self.request(child, verb, arguments, timeout_seconds=timeout_seconds)

    def request_builder(self, verb: Verb[Answer], arguments: Mapping[str, object], *, timeout_seconds: float) -> Answer:
        """Ask the child that describes and builds."""
        return self.request(self.children.builder(), verb, arguments, timeout_seconds=timeout_seconds)

    @contextmanager
    def phase(self, name: str) -> Generator[None]:
        """Say that a phase begins, and keep how long it takes. Raises the interruption's cause."""
        self.interruption.check()
        self.lease.phase(name)
        started_at = time.monotonic()
        try:
            yield
        finally:
            self.record.add_seconds(name, time.monotonic() - started_at)
