"""The children of a slot: one holds torch, one builds engines, and each engine that runs has a fresh one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from workers.devices.locks import turns_of
from workers.engine import verbs
from workers.interruption import Interruption
from workers.processes import model_verbs
from workers.processes.builder import Builder
from workers.processes.child import Child, ChildError
from workers.processes.environment import NCCL_VARIABLE, nccl_library

RELEASE_SECONDS = 30.0

GPU_BUILDERS = 2
"""Processes that build for the slots of a GPU: one parses and writes while the other's kernels are on the device."""


class Children:
    """Starts children as they are needed. One that has died, or was killed, is started anew when it is asked for again.

    `engine_python` is the interpreter of the engine children (a runtime's bindings may exist for one version only).
    `gpu_uuid` is the only GPU that they see; None: they see none, and compute on the CPU.
    """

    def __init__(
        self,
        *,
        threads: int,
        engine_python: str | None = None,
        gpu_uuid: str | None = None,
        rank_devices: Sequence[str] = (),
        shared_builder: Builder | None = None,
    ) -> None:
        """`rank_devices`: those of an engine that devices share, the slot's own first, as CUDA_VISIBLE_DEVICES names
        them; `shared_builder`: one that other slots use, too, and that is to end after them (left out: it has its
        own)."""
        self.threads = threads
        self.gpu_uuid = gpu_uuid
        self.rank_devices = tuple(rank_devices)
        self._engine_python = engine_python or sys.executable
        # Passive: threads that spin while they wait slow each other down many times over if cores are shared.
        self._environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self._environment["CUDA_VISIBLE_DEVICES"] = gpu_uuid or ""
        # Kernels are loaded when they are first used: an engine's memory is not that of a whole library.
        self._environment["CUDA_MODULE_LOADING"] = "LAZY"
        if rank_devices and (nccl := nccl_library()) is not None:
            self._environment[NCCL_VARIABLE] = nccl
        self._model: Child | None = None
        self._shares_builder = shared_builder is not None
        self._builder = shared_builder or Builder(lambda: self._start_engine("build"))
        self._engine: Child | None = None
        self._next_engine: Child | None = None

    @classmethod
    def of_slots(
        cls,
        count: int,
        *,
        threads: int,
        engine_python: str | None = None,
        gpu_uuid: str | None = None,
        rank_devices: Sequence[str] = (),
    ) -> list[Children]:
        """Those of so many slots on one device. On a GPU they share the processes that build."""
        make = partial(cls, threads=threads, engine_python=engine_python, gpu_uuid=gpu_uuid, rank_devices=rank_devices)
        first = make()
        if gpu_uuid is None:
            return [first, *(make() for _ in range(1, count))]
        builder = Builder(lambda: first._start_engine("build"), min(count, GPU_BUILDERS))
        return [make(shared_builder=builder) for _ in range(count)]

    def warm_up(self) -> None:
        """Start what takes long to start and is needed by every trial; from a thread that lives as long as they do."""
        with contextlib.suppress(OSError):
            self.model()

    def warm_up_builder(self, runtime: str, interruption: Interruption) -> None:
        """Let the processes that build for a GPU do what their first build would begin with, beside other work."""
        if self.gpu_uuid is not None:
            self._builder.warm_up({"runtime": runtime, **self._turn()}, interruption)

    def model(self) -> Child:
        """The torch child, kept between trials until it fails."""
        if self._model is None or not self._model.alive():
            self.discard_model()
            argv = [sys.executable, "-m", "workers.processes.torch_child", "--threads", str(self.threads)]
            self._model = Child(argv, name="model", env=self._environment)
        return self._model

    def prepared_model(self) -> Child:
        """The torch child that was asked to make the attempt's model.

        It may have died since, of which the next request tells: another one would hold no model.
        """
        return self._model or self.model()

    def builder(self) -> Builder:
        """The engine child that describes and builds."""
        return self._builder

    def start_engine(self, runtime: str, turns: Path) -> None:
        """Start the process of the next engine that is measured, which imports its runtime while others work.

        `turns`: the device's; if that is the CPU, nothing is measured during the import.
        """
        if self._next_engine is None or not self._next_engine.alive():
            self._next_engine = _killed(self._next_engine)
            on_device = () if self.gpu_uuid is not None else ("--turns", str(turns))
            self._next_engine = self._start_engine("engine", "--runtime", runtime, *on_device)

    def fresh_engine(self) -> Child:
        """A new process for the engine that is measured now: what it takes is that engine's. The one before ends."""
        self.close_engine()
        started, self._next_engine = self._next_engine, None
        if started is not None and not started.alive():
            started = _killed(started)
        self._engine = started or self._start_engine("engine")
        return self._engine

    def close_engine(self) -> None:
        """End the process of the engine that was measured; on a GPU when it is its turn."""
        engine, self._engine = self._engine, None
        if engine is not None and self.gpu_uuid is not None:
            with contextlib.suppress(ChildError, OSError):
                engine.request(verbs.LEAVE, self._turn(), timeout_seconds=RELEASE_SECONDS)
            engine.kill()
        elif engine is not None:
            engine.close()

    def kill_engine(self) -> None:
        """The same at once, whoever has the device."""
        self._engine = _killed(self._engine)

    def release_model(self) -> None:
        """Let the torch child forget its model: its memory is for the attempts of other slots."""
        if self._model is not None and self._model.alive():
            with contextlib.suppress(ChildError, OSError):
                self._model.request(model_verbs.RELEASE, self._turn(), timeout_seconds=RELEASE_SECONDS)

    def discard_model(self) -> None:
        """End the torch child: after an error its device's state is not to be trusted."""
        self._model = _killed(self._model)

    def discard_builder(self) -> None:
        """End the building child: after an error its device's state is not to be trusted."""
        self._builder.discard()

    def kill(self) -> None:
        """End all children at once, but for a builder that is shared."""
        self._model, self._engine = _killed(self._model), _killed(self._engine)
        self._next_engine = _killed(self._next_engine)
        if not self._shares_builder:
            self._builder.kill()

    def _turn(self) -> dict[str, str]:
        """What a request takes its turn by: a GPU's memory changes in turn, as engines are weighed by it."""
        return {} if self.gpu_uuid is None else {"turns": str(turns_of(self.gpu_uuid))}

    def _start_engine(self, name: str, *options: str) -> Child:
        argv = [self._engine_python, "-m", "workers.engine", *options]
        try:
            return Child(argv, name=name, env=self._environment)
        except OSError as error:
            raise OSError(
                f"the interpreter of the engine child, {self._engine_python!r}, cannot be started: {error}. "
                "LAYERSWEEP_ENGINE_PYTHON names it"
            ) from error


def _killed(child: Child | None) -> None:
    if child is not None:
        child.kill()
