"""The scratch memory of one ONNX Runtime context, as its memory arena takes it from the system.

ONNX Runtime has no call for this in Python, but its arena logs each extension. An arena that takes exactly what is
asked for is registered once a process. A first run records the memory plan and gives everything back; the extensions
of the second run are the one block that the plan needs, plus what kernels take beyond the plan. Weights, and inputs and
outputs that are bound, are not in it.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnxruntime

from ..onnx_file import chain_model
from ..protocol import RequestError
from .session import INFO, bind, listening, open_session, room_for, session_options, tensor_specs

_EXTENDED = re.compile(r"Extended allocation by (\d+) bytes")

_PROBE_OPERATORS, _PROBE_SHAPE = ("Erf", "Softmax", "Erf"), (64, 256)
_PROBE_TENSOR_BYTES = 4 * 64 * 256
"""A graph whose need is known: two intermediate tensors, of which the second may take the place of the first."""

_SAME_AS_REQUESTED = 1


class ScratchArena:
    """The process's arena for `scratch_bytes`."""

    _shared: ScratchArena | None = None

    @classmethod
    def shared(cls) -> ScratchArena:
        """Register it, the first time. Raises RequestError("unsupported") if the need of a known graph comes out
        wrong: another version may log other words."""
        if cls._shared is None:
            memory = onnxruntime.OrtMemoryInfo(
                "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
            )
            arena = onnxruntime.OrtArenaCfg({"arena_extend_strategy": _SAME_AS_REQUESTED})
            onnxruntime.create_and_register_allocator(memory, arena)
            cls._shared = cls()
        cls._shared.check()
        return cls._shared

    def check(self) -> None:
        """Raise unless the need of the known graph comes out right."""
        found = self.scratch_bytes(self.open(chain_model(_PROBE_OPERATORS, _PROBE_SHAPE, opset=18)))
        if not _PROBE_TENSOR_BYTES <= found <= 2 * _PROBE_TENSOR_BYTES:
            raise RequestError(
                "unsupported",
                f"onnxruntime {onnxruntime.__version__} does not report scratch memory in a way known here ({found} "
                f"bytes for a graph that needs {_PROBE_TENSOR_BYTES} to {2 * _PROBE_TENSOR_BYTES}): install 1.32",
            )

    def open(self, engine: Path | bytes) -> onnxruntime.InferenceSession:
        """A session of a built engine that works in this arena."""
        options = session_options(threads=1, optimize=False)
        options.add_session_config_entry("session.use_env_allocators", "1")
        return open_session(engine, options)

    def scratch_bytes(self, session: onnxruntime.InferenceSession) -> int:
        """Bytes that one run of a session of this arena needs beside its weights, inputs and outputs."""
        give_back = onnxruntime.RunOptions()
        give_back.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        inputs = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in tensor_specs(session.get_inputs(), "build")}
        outputs = {spec.name: room_for(spec) for spec in tensor_specs(session.get_outputs(), "build")}
        binding = bind(session, inputs, outputs)
        session.run_with_iobinding(binding, give_back)
        messages: list[str] = []
        with listening(lambda severity, message: messages.append(message), INFO):
            session.run_with_iobinding(binding, give_back)
        return sum(int(found.group(1)) for message in messages if (found := _EXTENDED.search(message)))
