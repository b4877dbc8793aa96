"""A rank of a shared engine on the CPU: sessions of ONNX Runtime, with collectives of a communicator between them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ..base import TensorSpec
from ..parallel.rank_engine import RankEngine
from ..parallel.shards import Collective, Shards
from ..parallel.star import Communicator
from ..protocol import RequestError, invalid
from .engine import LoadedSession, OnnxRuntimeEngine
from .session import bind_values, copy_of, explained, open_session, room_for, session_options, tensor_specs

Values = dict[str, onnxruntime.OrtValue]


@dataclass(frozen=True)
class _OpenSegment:
    session: onnxruntime.InferenceSession
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class _BoundSegment:
    session: onnxruntime.InferenceSession
    binding: onnxruntime.IOBinding

    def run(self, communicator: Communicator) -> None:
        self.session.run_with_iobinding(self.binding)


@dataclass(frozen=True)
class _BoundCollective:
    kind: str
    part: np.ndarray
    whole: np.ndarray

    def run(self, communicator: Communicator) -> None:
        (communicator.sum if self.kind == "sum" else communicator.gather)(self.part, self.whole)


class OnnxRuntimeRank(OnnxRuntimeEngine, RankEngine):
    """A rank whose segments are sessions on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self._rank = 0
        self._communicator: Communicator | None = None
        self._steps: tuple[_OpenSegment | Collective, ...] = ()

    def invitation(self) -> bytes:
        return b""

    def join(self, rank: int, size: int, invitation: bytes, communicator: Communicator) -> None:
        self._rank, self._communicator = rank, communicator

    def timed_run(self, prepared: Any) -> float:
        communicator = self._joined
        communicator.meet()
        started = time.perf_counter_ns()
        for step in prepared:
            step.run(communicator)
        return (time.perf_counter_ns() - started) / 1e6

    def _load(self, engine: Path, options: Mapping[str, int]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        shards = Shards.read(engine)
        settings = session_options(options["threads"], optimize=False)
        steps: list[_OpenSegment | Collective] = []
        for step in shards.ranks[self._rank].steps:
            if isinstance(step, Collective):
                steps.append(step)
                continue
            with explained("invalid", f"{step.path} is no engine that ONNX Runtime reads (cut off? build it again)"):
                session = open_session(step.path, settings)
            inputs, outputs = (tensor_specs(each, "invalid") for each in (session.get_inputs(), session.get_outputs()))
            steps.append(_OpenSegment(session, inputs, outputs))
        opened = [step for step in steps if isinstance(step, _OpenSegment)]
        if not opened:
            raise invalid(f"{engine} has no segments")
        self._steps = tuple(steps)
        self._loaded_state = LoadedSession(opened[0].session, options["threads"])
        taken = {spec.name: spec for segment in opened for spec in segment.inputs}
        given = {spec.name: spec for segment in opened for spec in segment.outputs}
        return tuple(taken[name] for name in shards.inputs if name in taken), (given[shards.output],)

    def _prepare(self, inputs: Mapping[str, np.ndarray]) -> Any:
        return self._bound({name: copy_of(array) for name, array in inputs.items()})

    def _execute(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, onnxruntime.OrtValue]) -> None:
        values = {name: copy_of(array) for name, array in inputs.items()}
        for step in self._bound({**values, **outputs}):
            step.run(self._joined)

    def _close(self) -> None:
        super()._close()
        self._steps = ()

    def _bound(self, values: Values) -> list[_BoundSegment | _BoundCollective]:
        """The steps with memory for every tensor; `values`: what has some already."""
        for segment in (step for step in self._steps if isinstance(step, _OpenSegment)):
            for spec in (*segment.inputs, *segment.outputs):
                # What a collective gives back is the input of the next segment.
                values.setdefault(spec.name, room_for(spec))
        return [self._bound_step(step, values) for step in self._steps]

    def _bound_step(self, step: _OpenSegment | Collective, values: Values) -> _BoundSegment | _BoundCollective:
        if isinstance(step, Collective):
            return _BoundCollective(step.kind, values[step.source].numpy(), values[step.target].numpy())
        inputs = {spec.name: values[spec.name] for spec in step.inputs}
        outputs = {spec.name: values[spec.name] for spec in step.outputs}
        return _BoundSegment(step.session, bind_values(step.session, inputs, outputs))

    @property
    def _joined(self) -> Communicator:
        if self._communicator is None:
            raise RequestError("internal", "the rank has not joined its group")
        return self._communicator
