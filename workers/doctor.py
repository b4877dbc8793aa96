"""`layersweep worker --doctor`: what a worker finds on this machine, and what to install if something is missing."""

from __future__ import annotations

from collections.abc import Iterator

from workers.engine.__main__ import DEVICE_KINDS, RUNTIMES
from workers.engine.nvml import Gpu, driver_version, gpus
from workers.engine.verbs import DESCRIBE
from workers.processes.child import ChildError
from workers.processes.children import Children

DESCRIBE_SECONDS = 120.0


def advice(capability: tuple[int, int]) -> str:
    """What to install for a GPU of this compute capability; see docs/targets.md."""
    full = "`pip install tensorrt-cu13 cuda-bindings nvidia-ml-py` (target tensorrt)"
    if capability in ((9, 0), (10, 0), (10, 3)):
        return f"a data center GPU: {full}; TensorRT for RTX does not run on it"
    if capability >= (7, 5):
        rtx = "`pip install tensorrt-rtx-cu13 cuda-bindings nvidia-ml-py` (target tensorrt_rtx)"
        return f"{full}, or on a GeForce or RTX card {rtx}"
    return (
        "older than Turing: TensorRT 8.6 is the newest for it (`pip install tensorrt==8.6.1` for Python 3.10, which "
        "LAYERSWEEP_ENGINE_PYTHON then names)"
    )


def report(engine_python: str | None = None) -> tuple[list[str], bool]:
    """Lines for a person, and whether some runtime works here."""
    lines, works = list(_machine()), False
    for gpu in [*gpus(), None]:
        kind = "gpu" if gpu else "cpu"
        lines.append(f"{gpu.model} ({gpu.uuid}, compute capability {_dotted(gpu)}):" if gpu else "the CPU:")
        children = Children(threads=1, engine_python=engine_python, gpu_uuid=gpu.uuid if gpu else None)
        found = False
        try:
            for runtime in (each for each in RUNTIMES if DEVICE_KINDS[each] == kind):
                runs, line = _runtime(children, runtime)
                found = found or runs
                lines.append(f"  {line}")
        finally:
            children.kill()
        if gpu and not found:
            lines.append(f"  install: {advice(gpu.compute_capability)}")
        works = works or found
    return lines, works


def _machine() -> Iterator[str]:
    driver = driver_version()
    if driver:
        yield f"NVIDIA driver {driver}"
    else:
        yield (
            "no NVIDIA driver answers (nvidia-smi works, and nvidia-ml-py is installed, where there is a GPU): "
            "engines run on the CPU"
        )


def _runtime(children: Children, runtime: str) -> tuple[bool, str]:
    try:
        found = children.builder().request(DESCRIBE, {"runtime": runtime}, timeout_seconds=DESCRIBE_SECONDS)
    except (ChildError, OSError) as failure:
        return False, f"{runtime}: no: {failure}"
    if found["build_only"]:
        return False, f"{runtime} {found['version']}: builds, does not run: {found['lacks'].get('execution', '')}"
    lacks = "".join(f"; {name}: {why}" for name, why in found["lacks"].items())
    return True, f"{runtime} {found['version']}: works, with {', '.join(found['dtypes'])}{lacks}"


def _dotted(gpu: Gpu) -> str:
    return ".".join(map(str, gpu.compute_capability))
