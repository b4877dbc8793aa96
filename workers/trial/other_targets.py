"""Does the trained model build for other targets, too? Tried with the real builder of each that needs no GPU here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, Required, TypedDict

from workers.engine.protocol import Answer, Verb
from workers.engine.verbs import BUILD, DESCRIBE
from workers.processes.child import ChildError

BUILDERS: Mapping[str, Mapping[str, int]] = {
    "tensorrt_rtx": {"7.5": 75, "8.6": 86, "8.9": 89, "12.0": 120},
}
"""Runtime -> compute capability -> the option of that name. The RTX builder needs no GPU."""

DESCRIBE_SECONDS = 60.0
BUILD_SECONDS = 300.0


class TriedBuild(TypedDict, total=False):
    """What became of a build for another target."""

    built: Required[bool]
    seconds: float
    engine_bytes: int
    reason: str
    """Why not."""


Export = Callable[[Path, int], object]
"""Write the model's graph to a file, in an opset."""


class AskBuilder(Protocol):
    """Ask the attempt's builder, when it is its turn on the device. Raises ChildError, OSError."""

    def __call__(self, verb: Verb[Answer], arguments: Mapping[str, object], *, timeout_seconds: float) -> Answer: ...


def try_builds(ask: AskBuilder, folder: Path, export: Export) -> dict[str, TriedBuild]:
    """What became of it by target; empty if no such builder is installed.

    A builder that fails, crashes or hangs is a finding about its target, and no failure of the attempt.
    """
    found: dict[str, TriedBuild] = {}
    for runtime, capabilities in BUILDERS.items():
        try:
            described = ask(DESCRIBE, {"runtime": runtime}, timeout_seconds=DESCRIBE_SECONDS)
            onnx = folder / f"{runtime}.onnx"
            export(onnx, described["opset"])
        except (ChildError, OSError):
            continue
        for capability, option in capabilities.items():
            name = f"{runtime} {described['version']} for compute capability {capability}"
            found[name] = _try_build(ask, runtime, onnx, option)
    return found


def _try_build(ask: AskBuilder, runtime: str, onnx: Path, capability: int) -> TriedBuild:
    arguments = {
        "runtime": runtime,
        "onnx": str(onnx),
        "engine": str(onnx.with_suffix(f".{capability}.engine")),
        "options": {"compute_capability": capability},
    }
    try:
        built = ask(BUILD, arguments, timeout_seconds=BUILD_SECONDS)
    except (ChildError, OSError) as failure:
        return {"built": False, "reason": str(failure)[:1000]}
    return {"built": True, "seconds": built["build_seconds"], "engine_bytes": built["engine_bytes"]}
