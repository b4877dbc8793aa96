"""A slot's real children with some functions replaced, which fail while a file says so.

The builder hangs, dies, lacks memory or disk, logs an error, writes half an engine, or an engine of another function.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.workers.engine_parent import ENGINE_PYTHON
from workers.processes.child import Child
from workers.processes.children import Children

ROOT = Path(__file__).parents[2]

PROGRAMS = Path(__file__).with_name("faulty_programs")
"""What runs in place of the children's own programs."""


class FaultyChildren(Children):
    """Children that fail while `arm` says how."""

    def __init__(self, folder: Path, runtime: str) -> None:
        super().__init__(threads=1)
        self._fault = folder / "fault"
        self._runtime = runtime
        self.arm("none")

    def arm(self, fault: str) -> None:
        self._fault.write_text(fault)

    def armed(self) -> str:
        return self._fault.read_text()

    def model(self) -> Child:
        if self._model is None or not self._model.alive():
            self.discard_model()
            self._model = self._start("model", "model", "--threads", "1")
        return self._model

    def _start_engine(self, name: str, *options: str) -> Child:
        return self._start("engine", name, *options)

    def _start(self, program: str, name: str, *arguments: str) -> Child:
        python = ENGINE_PYTHON if program == "engine" else sys.executable
        env = {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "CUDA_MODULE_LOADING": "LAZY",
            "FAULT_FILE": str(self._fault),
            "FAULTY_RUNTIME": self._runtime,
        }
        return Child([python, str(PROGRAMS / f"{program}.py"), *arguments], name=name, env=env)
