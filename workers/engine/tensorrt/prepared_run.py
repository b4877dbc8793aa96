"""One set of inputs on the device, with room for the outputs, ready to run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..base import ROW_AXIS, RowWrite
from . import cuda
from .program import Program
from .tensors import Buffers


@dataclass
class PreparedRun:
    """A run, and what follows each: rows of outputs that are copied into caches, which are inputs of the next run."""

    program: Program
    buffers: Buffers
    graph: cuda.Graph | None = None
    """All of it, captured; None where it cannot be."""
    copies: list[cuda.StridedCopy] = field(default_factory=list)

    def enqueue(self, stream: cuda.Stream) -> None:
        """Enqueue it kernel by kernel. The program points to the buffers. Raises RequestError, CudaError."""
        self.program.enqueue(stream)
        for copy in self.copies:
            copy.enqueue(stream)

    def launch(self, stream: cuda.Stream) -> None:
        """Let the device run it, as a graph where there is one. Raises RequestError, CudaError."""
        if self.graph is not None:
            self.graph.launch()
            return
        self.program.point(self.buffers)
        self.enqueue(stream)

    def keep_rows(self, writes: Sequence[RowWrite]) -> None:
        """Let each run write these rows, in as few copies as memory allows: a graph starts them one after the other.

        Raises KeyError for tensors that the engine has not.
        """
        self.copies = []
        for copy in sorted(self._row_copies(writes), key=lambda each: each.target):
            joined = self.copies[-1].joined(copy) if self.copies else None
            if joined is None:
                self.copies.append(copy)
            else:
                self.copies[-1] = joined

    def _row_copies(self, writes: Sequence[RowWrite]) -> Iterator[cuda.StridedCopy]:
        bindings = {binding.spec.name: binding for binding in self.program.bindings}
        for write in writes:
            cache, row = bindings[write.cache], bindings[write.output]
            *rows, slots, _ = cache.spec.shape
            assert len(rows) == ROW_AXIS, "a cache is [B, K, S, H]"
            row_bytes = cache.nbytes // math.prod((*rows, slots))
            assert row.nbytes == row_bytes * math.prod(rows), "one row of each sequence and head"
            yield cuda.StridedCopy(
                source=self.buffers[write.output].address,
                source_pitch=row_bytes,
                target=self.buffers[write.cache].address + write.slot * row_bytes,
                target_pitch=slots * row_bytes,
                width=row_bytes,
                count=math.prod(rows),
            )

    def close(self) -> None:
        """Give the graph and the memory back."""
        if self.graph is not None:
            self.graph.close()
        self.buffers.free()
