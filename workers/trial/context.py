"""What every step of one attempt works with: the trial, its lease, and the worker's caches and child processes."""

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
from workers.devices.locks import turns_of
from workers.devices.memory import MemoryShare
from workers.devices.time_shares import DeviceShare
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
"""Request that may have the device alone -> the purpose, as in `cost.alone`. A measurement reports its own parts."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a request to a child may take before the child counts as hung. Waits for a turn on the device do not
    count."""

    prepare_seconds: float = 300
    export_seconds: float = 600
    build_seconds: float = 600
    load_seconds: float = 120
    run_seconds: float = 120
    measure_seconds: float = 120
    evaluate_seconds: float = 3600
    silence_seconds: float = 300
    """Longest silence of a training or an engine's evaluation, whose length is not known beforehand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialContext:
    """What all steps of an attempt share. Steps write what they find to `record` and return what they pass on."""

    trial: str
    runtime: str
    target_key: str
    configuration: TrialConfiguration
    constraints: Sequence[str]
    hardware_first: bool
    """Whether the untrained model is built and measured before anything is trained."""
    measures: bool
    """Whether the trained model is measured: not for a further training of a measured configuration."""
    metrics_in_use: Sequence[str]
    """The metrics in the sweep's objectives and constraints."""
    rungs: Sequence[int]
    """Training steps at which the service may prune the trial."""
    dataset: LeasedDataset | None
    """None for a probe."""
    lease: Lease
    """Keeps the attempt and carries its reports."""
    capabilities: Capabilities
    """What the trial's target supports."""
    files: AttemptFiles
    children: Children
    datasets: DatasetCache
    engines: EngineCache
    device_uuid: str
    share: DeviceShare
    """This attempt's share of the device's time."""
    waits: Waits
    memory: MemoryShare
    """This attempt's share of the device's memory."""
    limits: Limits
    training_state: str | None = None
    """SHA-256 of the training state that a pruner stopped at; None if the training begins anew."""
    artifacts: ArtifactStore | None = None
    """Takes the files of a trial on the front; None to keep none."""
    record: TrialRecord = field(default_factory=TrialRecord)
    shape: str | None = None
    """The shape that the steps work at; None if the sweep names none, or the steps work at all of them."""
    is_scored: bool = True
    """Whether the engine at this shape scores the validation split. Of several shapes, only the first does."""

    def at_shapes(self) -> tuple[TrialContext, ...]:
        """The attempt at each shape, in order; the attempt itself if the sweep names none."""
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
        """Whether the trial has no data and learns nothing."""
        return self.task == "probe"

    @property
    def model(self) -> Mapping[str, Scalar]:
        return self.configuration.model

    @property
    def inference(self) -> InferenceConfig:
        return self.configuration.inference

    @property
    def batch_size(self) -> int:
        """The batch size of inference."""
        return self.inference.batch_size

    @property
    def signature(self) -> Signature:
        """The model's inputs and outputs at the shape that is measured."""
        return signature_of(self.configuration)

    @property
    def dtypes(self) -> set[str]:
        """The dtypes of the model and its layers."""
        return set(dtypes.by_parameter(self.model).values())

    @property
    def quantization(self) -> str:
        return quantization.of_model(self.model)

    @property
    def is_quantized(self) -> bool:
        return self.quantization != quantization.NONE

    @property
    def rank_devices(self) -> tuple[str, ...]:
        """The device of each rank of a model that devices share; empty for other models."""
        size = int(self.model.get("tp_size") or 1)
        return self.children.rank_devices[:size] if size > 1 else ()

    @property
    def turns(self) -> Path:
        """The folder of locks by which children take turns on the device."""
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
        """Send a child a request, which may wait for a turn on the device, and return the answer.

        Raises the interruption's cause, ChildError. `stops_for`: the cause that stops the verb early instead, as in
        `Child.request`.
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
            # The child may have failed or died while it waited.
            self.waits.end()

    def request_model(self, verb: Verb[Answer], arguments: Mapping[str, object], timeout_seconds: float) -> Answer:
        """Ask the torch child: a new one to make the model, later the one that holds it."""
        child = self.children.model() if verb == PREPARE else self.children.prepared_model()
        return self.request(child, verb, arguments, timeout_seconds=timeout_seconds)

    def request_builder(self, verb: Verb[Answer], arguments: Mapping[str, object], *, timeout_seconds: float) -> Answer:
        """Ask the child that describes targets and builds engines."""
        return self.request(self.children.builder(), verb, arguments, timeout_seconds=timeout_seconds)

    @contextmanager
    def phase(self, name: str) -> Generator[None]:
        """Report that a phase begins and record how long it takes. Raises the interruption's cause."""
        self.interruption.check()
        self.lease.phase(name)
        started_at = time.monotonic()
        try:
            yield
        finally:
            self.record.add_seconds(name, time.monotonic() - started_at)
