"""A rank of a shared TensorRT engine: plans with NCCL's collectives between them on one stream, one CUDA graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..base import Enqueued, TensorSpec
from ..parallel.rank_engine import RankEngine
from ..parallel.shards import Collective, Shards
from ..parallel.star import Communicator
from ..protocol import RequestError, invalid
from . import cuda
from .engine import TensorRtEngine
from .nccl import TYPES, Nccl, NcclCommunicator
from .plan_file import PlanFile, read_plan
from .prepared_run import PreparedRun
from .program import Program, cuda_explained
from .scratch import lend_scratch, scratch_bytes
from .tensors import Binding, Buffers


@dataclass
class SegmentedProgram(Program):
    """Segments with collectives between them, as one program: its bindings are the model's inputs and its output."""

    steps: tuple[Program | Collective, ...]
    communicator: NcclCommunicator
    between: Buffers
    """Memory for what crosses from step to step."""
    scratch: cuda.Buffer
    """What every segment computes in: they run one after another."""

    @classmethod
    def of(
        cls, steps: tuple[Program | Collective, ...], shards: Shards, communicator: NcclCommunicator
    ) -> SegmentedProgram:
        """Raises CudaError where the memory between the steps is not there."""
        segments = [step for step in steps if isinstance(step, Program)]
        if not segments:
            raise invalid("the rank has no segments")
        known = {each.spec.name: each for segment in segments for each in segment.bindings}
        outside = [known[name] for name in shards.inputs if name in known]
        outside = [Binding(each.spec, each.type_name, is_input=True) for each in outside]
        output = known[shards.output]
        outside.append(Binding(output.spec, output.type_name, is_input=False))
        names = {each.spec.name for each in outside}
        between = tuple(each for name, each in known.items() if name not in names)
        scratch = cuda.Buffer(max(scratch_bytes(segment.engine) for segment in segments))
        for segment in segments:
            lend_scratch(segment.context, scratch)
        first = segments[0]
        return cls(first.engine, first.context, tuple(outside), steps, communicator, Buffers(between), scratch)

    def free(self) -> None:
        self.between.free()
        self.scratch.free()

    def point(self, buffers: Buffers) -> None:
        addresses = dict((*self.between.addresses(), *buffers.addresses()))
        for segment in (step for step in self.steps if isinstance(step, Program)):
            for each in segment.bindings:
                segment.context.set_tensor_address(each.spec.name, addresses[each.spec.name])

    def enqueue(self, stream: cuda.Stream) -> None:
        for step in self.steps:
            if isinstance(step, Program):
                step.enqueue(stream)
            else:
                self._take_part(step, stream)

    def _take_part(self, step: Collective, stream: cuda.Stream) -> None:
        binding = self.between.binding(step.source)
        shape = math.prod(binding.spec.shape), TYPES[binding.type_name]
        self.communicator.enqueue(step.kind, self.between[step.source], self.between[step.target], shape, stream)


class TensorRtRank(TensorRtEngine, RankEngine):
    """A rank whose segments are plans on the GPU that the process sees."""

    shares_scratch = True

    def __init__(self) -> None:
        super().__init__()
        self._rank = 0
        self._nccl: Nccl | None = None
        self._communicator: NcclCommunicator | None = None

    def invitation(self) -> bytes:
        # A context first: NCCL takes the one that is current.
        _ = self._device
        return self._library.unique_id()

    def join(self, rank: int, size: int, invitation: bytes, communicator: Communicator) -> None:
        _ = self._device
        self._rank = rank
        communicator.meet()
        self._communicator = self._library.communicator(rank, size, invitation)

    def timed_enqueue(self, prepared: PreparedRun) -> Enqueued:
        # How many runs go ahead is each rank's own to find out elsewhere; here all ranks run as often.
        program, stream = self._ready()
        program.point(prepared.buffers)
        return Enqueued(*stream.timed_with_host(lambda: prepared.enqueue(stream)))

    def _load(self, engine: Path, options: Mapping[str, int]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        if self._communicator is None:
            raise RequestError("internal", "the rank has not joined its group")
        shards = Shards.read(engine)
        with cuda_explained(f"{engine.name} cannot be loaded"):
            steps = tuple(
                step if isinstance(step, Collective) else self._segment(step.path)
                for step in shards.ranks[self._rank].steps
            )
            self._stream = cuda.Stream()
            self._program = program = SegmentedProgram.of(steps, shards, self._communicator)
        inputs = tuple(each.spec for each in program.bindings if each.is_input)
        return inputs, tuple(each.spec for each in program.bindings if not each.is_input)

    def _segment(self, path: Path) -> Program:
        plan = read_plan(path)
        self._check_origin(plan, path, self._device)
        if self._plan is None:
            self._plan = PlanFile(b"", plan.about)
        return self._open(plan, path.name, has_scratch=False)

    def _close(self) -> None:
        program = self._program
        super()._close()
        if isinstance(program, SegmentedProgram):
            program.free()

    def leave_device(self) -> None:
        if self._communicator is not None:
            self._communicator.close()
        self._communicator = None
        super().leave_device()

    @property
    def _library(self) -> Nccl:
        if self._nccl is None:
            self._nccl = Nccl()
        return self._nccl
