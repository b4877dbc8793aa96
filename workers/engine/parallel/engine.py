"""An engine that several processes share: rank 0, which leads the others.

To measuring, memory and loss it is an engine like any other. Each run is announced to the other ranks, which run it,
too; what it took is what the slowest rank took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base import BuildLog, Engine, Footprint, LossSums, TensorSpec
from ..protocol import RequestError
from ..verbs import BuildAnswer, BuildSizes, Capabilities, DeviceState, EngineEnvironment
from .building import build_rank
from .peers import Peers
from .rank_engine import rank_engine
from .shards import Shards


@dataclass(frozen=True)
class _PreparedRun:
    own: Any
    index: int
    """Of the same set at the other ranks."""


class SharedEngine(Engine):
    """Rank 0 of a group. Its graph and its engine are files of `Shards`."""

    def __init__(self, runtime: str, devices: Sequence[str]) -> None:
        """`devices`: of each rank, this one's first. Raises RequestError("unsupported")."""
        super().__init__()
        self._own = rank_engine(runtime)
        self.runtime = runtime
        self.build_options, self.load_options = self._own.build_options, self._own.load_options
        self.build_turn, self.load_turn = self._own.build_turn, self._own.load_turn
        self.repeats_when_noisy = self._own.repeats_when_noisy
        self.least_share_of_tails = self._own.least_share_of_tails
        self._devices = tuple(devices)
        self._started: Peers | None = None
        self._has_joined = False
        self._shards: Shards | None = None
        self._said: tuple[BuildSizes, ...] = ()
        self._prepared_count = 0
        self._runs_ms: list[tuple[float, ...]] = []

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the other ranks."""
        return self._peers.pids

    def describe(self) -> Capabilities:
        return {**self._own.describe(), "devices": len(self._devices)}

    def keep_timings(self, folder: Path) -> None:
        self._peers.together(lambda: self._own.keep_timings(folder), "keep_timings", folder)

    def build(self, onnx: Path, engine: Path, options: Mapping[str, object]) -> BuildAnswer:
        """As of every engine; the sizes are the largest rank's, `ranks` says those of each."""
        answer = super().build(onnx, engine, options)
        return {
            **answer,
            "engine_bytes": max(each["engine_bytes"] for each in self._said),
            "ranks": list(self._said),
        }

    def timed_run(self, prepared: _PreparedRun) -> float:
        own, others = self._peers.together(lambda: self._own.timed_run(prepared.own), "timed_run", prepared.index)
        self._runs_ms.append((own, *others))
        return max(own, *others)

    def environment(self) -> EngineEnvironment:
        medians = np.median(np.asarray(self._runs_ms), axis=0).tolist() if self._runs_ms else []
        return {**self._own.environment(), "ranks": len(self._devices), "rank_latency_ms_p50": medians}

    def device_state(self) -> DeviceState:
        return self._own.device_state()

    def memory_in_use(self) -> int:
        return sum(self.memory_by_device())

    def memory_by_device(self) -> tuple[int, ...]:
        own, others = self._peers.together(self._own.memory_in_use, "memory_in_use")
        return (own, *others)

    def leave_device(self) -> None:
        if self._started is not None:
            self._started.together(self._own.leave_device, "leave_device")
            self._started.end()
            self._started = None

    # --- what a runtime writes --------------------------------------------------------------------------------------

    def _build(self, onnx: Path, engine: Path, options: Mapping[str, int], log: BuildLog) -> None:
        shards, folder = Shards.read(onnx), engine.parent / f"{onnx.name}.built"
        self._check_ranks(shards)
        folder.mkdir(exist_ok=True)
        self.before_timing()
        own, others = self._peers.together(
            lambda: build_rank(self._own, shards, 0, folder, options), "build", onnx, folder, dict(options)
        )
        self._said = (own, *others)
        shards.built(folder).write(engine)

    def _footprint(self, engine: Path) -> Footprint:
        largest = max(self._said, key=_memory_bytes)
        return Footprint(largest["weights_bytes"], largest["activation_bytes"], largest["io_bytes"])

    def _load(self, engine: Path, options: Mapping[str, int]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        self._shards = shards = Shards.read(engine)
        self._check_ranks(shards)
        if not self._has_joined:
            invitation, communicator = self._own.invitation(), self._peers.communicator
            self._peers.together(
                lambda: self._own.join(0, len(self._devices), invitation, communicator), "join", invitation
            )
            self._has_joined = True
        try:
            self._peers.together(lambda: self._own.load(engine, options), "load", engine, dict(options))
        except RequestError:
            self._peers.together(self._own.close, "close")
            raise
        return self._own.inputs, self._own.outputs

    def _prepare(self, inputs: Mapping[str, np.ndarray]) -> _PreparedRun:
        own, _ = self._peers.together(lambda: self._own.prepare(inputs), "prepare", dict(inputs))
        self._prepared_count += 1
        return _PreparedRun(own, self._prepared_count - 1)

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert self._shards is not None
        if not self._shards.output_is_part:
            return self._peers.together(lambda: self._own.run(inputs), "run_unread", dict(inputs))[0]
        own, others = self._peers.together(lambda: self._own.run(inputs), "run", dict(inputs))
        return {name: np.concatenate([part, *(each[name] for each in others)], axis=-1) for name, part in own.items()}

    def _attach_loss(self, loss_graph: Path) -> None:
        self._own.attach_loss(loss_graph)

    def _loss(self, inputs: Mapping[str, np.ndarray], targets: np.ndarray, weights: np.ndarray) -> LossSums:
        own, _ = self._peers.together(lambda: self._own.loss(inputs, targets, weights), "run_unread", dict(inputs))
        return own

    def _close(self) -> None:
        self._peers.together(self._own.close, "close")
        self._shards, self._prepared_count, self._runs_ms = None, 0, []

    def _check_ranks(self, shards: Shards) -> None:
        if len(shards.ranks) != len(self._devices):
            raise RequestError(
                "invalid", f"the model is shared by {len(shards.ranks)} ranks; there are {len(self._devices)} devices"
            )

    @property
    def _peers(self) -> Peers:
        if self._started is None:
            self._started = Peers(self.runtime, self._devices)
        return self._started


def _memory_bytes(sizes: BuildSizes) -> int:
    return sizes["weights_bytes"] + (sizes["activation_bytes"] or 0) + sizes["io_bytes"]
