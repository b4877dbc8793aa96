"""A plan that TensorRT has made ready to run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..base import describe_specs
from ..protocol import RequestError, invalid
from . import cuda
from .tensors import Binding, Buffers


@dataclass
class Program:
    """A deserialized engine, one execution context, and its tensors. Engine before context."""

    engine: Any
    context: Any
    bindings: tuple[Binding, ...]

    def point(self, buffers: Buffers) -> None:
        """Let the context read and write there."""
        for name, address in buffers.addresses():
            self.context.set_tensor_address(name, address)

    def enqueue(self, stream: cuda.Stream) -> None:
        """Raises RequestError where the library refuses."""
        if not self.context.execute_async_v3(int(stream.handle)):
            raise RequestError("internal", "the engine refused to run")

    def logits(self) -> Binding:
        """The output of that name, or the only one. Raises RequestError where that is none."""
        outputs = [binding for binding in self.bindings if not binding.is_input]
        named = [binding for binding in outputs if binding.spec.name == "logits"]
        if not named and len(outputs) != 1:
            given = describe_specs(tuple(binding.spec for binding in outputs))
            raise invalid(f"which output are the logits? The engine gives {given}")
        return named[0] if named else outputs[0]


@contextmanager
def cuda_explained(what: str) -> Generator[None]:
    """Turn the driver's errors into an answer."""
    try:
        yield
    except cuda.CudaError as problem:
        raise RequestError("out_of_memory" if problem.out_of_memory else "internal", f"{what}: {problem}") from problem
