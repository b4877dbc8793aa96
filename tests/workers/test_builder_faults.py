"""A builder that hangs, crashes, lacks memory or disk, or logs an error: its trial ends with the reason, the next runs.

The faults are injected: for so many starts the engine's interpreter is a program that fails as asked, then the real
one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workers.conftest import ScriptedService
from workers.children import Children
from workers.data import DatasetCache
from workers.engine_cache import EngineCache
from workers.execution import Execution
from workers.interruption import Interruption
from workers.run_trial import Limits

FAULTY = """
import os, signal, sys, time
from workers.engine.protocol import RequestFailed, serve

def build(request, progress):
    fault = {fault!r}
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "hang":
        time.sleep(600)
    if fault == "memory":
        raise RequestFailed("out_of_memory", "the device has no memory left")
    if fault == "error":
        raise RequestFailed("build", "it logged errors while it built: Myelin")
    raise OSError(28, "No space left on device")

serve({{"build": build}}, int(sys.argv[-1]))
"""


class FaultyBuilders:
    """An interpreter for engine children of which the first `count` builders fail."""

    def __init__(self, folder: Path) -> None:
        self._left, self._program = folder / "left", folder / "faulty.py"
        self.python = folder / "python"
        self.python.write_text(
            f'#!/bin/sh\nleft=$(cat "{self._left}")\n'
            f'if [ "$left" -gt 0 ]; then echo $((left - 1)) > "{self._left}"; exec "{sys.executable}" '
            f'"{self._program}" "$@"; fi\nexec "{sys.executable}" "$@"\n'
        )
        self.python.chmod(0o755)
        self.arm("none", 0)

    def arm(self, fault: str, count: int) -> None:
        self._left.write_text(str(count))
        self._program.write_text(FAULTY.format(fault=fault))


@pytest.mark.parametrize(
    ("fault", "count", "reason"),
    [
        ("hang", 1, "was not done within 2 s: it hung and was ended"),
        pytest.param("crash", 2, "SIGSEGV, 2 times", marks=pytest.mark.slow),
        pytest.param("memory", 1, "out of memory: the device has no memory left", marks=pytest.mark.slow),
        pytest.param("error", 1, "the engine cannot be built: it logged errors", marks=pytest.mark.slow),
        pytest.param("disk", 1, "No space left on device", marks=pytest.mark.slow),
    ],
)
def test_a_faulty_builder_fails_its_trial_and_not_the_next(
    fault: str,
    count: int,
    reason: str,
    scripted: ScriptedService,
    capabilities: dict[str, dict[str, Any]],
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    builders = FaultyBuilders(tmp_path)
    children = Children(threads=1, engine_python=str(builders.python))

    def execute(limits: Limits) -> dict[str, Any]:
        client = scripted.client()
        Execution(
            scripted.lease(training={"steps": 2}),
            service=client,
            children=children,
            datasets=DatasetCache(client, cache_dir),
            engines=EngineCache(cache_dir / "engines"),
            device_uuid="cpu-here",
            capabilities=capabilities,
            heartbeat_seconds=30,
            interruption=Interruption(),
            limits=limits,
        ).run()
        return scripted.sent("finish")[-1]

    try:
        builders.arm(fault, count)
        failed = execute(Limits(build_seconds=2))
        assert failed["outcome"] == "failed"
        assert reason in failed["reason"]
        children.discard_builder()
        builders.arm("none", 0)
        assert execute(Limits())["outcome"] == "complete"
    finally:
        children.kill()
