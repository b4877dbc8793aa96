"""On which targets the recommended configuration can be built: tried, registered by workers, or known otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layers import model as models
from layers.number_format import MIXED
from layers.quantization import IN_HALF
from service.recommendation.schemas import Compatibility, TargetFit

MATRIX = "not tried: docs/targets.md"

_RUNTIMES = (
    ("tensorrt", "8.6", 17, ("7.5", "8.0", "8.9", "9.0")),
    ("tensorrt", "10 and 11", 20, ("7.5", "8.0", "8.9", "9.0", "10.0")),
    ("tensorrt_rtx", "1.4 and later", 20, ("7.5", "8.6", "8.9", "12.0")),
)
"""Runtime, its versions, the opset that their parser reads, and the compute capabilities that they run on."""

_MEMORY_GIB = {"7.5": 16, "8.0": 40, "8.6": 24, "8.9": 24, "9.0": 80, "10.0": 180, "12.0": 32}
"""Of a usual card: T4, A100, RTX 3090, L4, H100, B200, RTX 5090."""


def _dtypes(runtime: str, version: str, capability: str) -> list[str]:
    """As docs/targets.md has them, with the sources there."""
    ampere = float(capability) >= 8.0
    found = ["float32", "float16"] + (["tf32"] if ampere else [])
    return found + (["bfloat16"] if ampere and (runtime == "tensorrt_rtx" or version != "8.6") else [])


def _quantizations(version: str, capability: str) -> list[str]:
    """The same of quantizations."""
    return ["int8", "fp8"] if version != "8.6" and float(capability) >= 8.9 else ["int8"]


def _lacks(version: str) -> dict[str, str]:
    new = "needs tensorrt 10 or later"
    return {
        "quantization fp8": f"{new} and compute capability 8.9" if version == "8.6" else "needs compute capability 8.9",
        **(dict.fromkeys((MIXED, IN_HALF), new) if version == "8.6" else {}),
    }


KNOWN: tuple[dict[str, Any], ...] = tuple(
    {
        "runtime": runtime,
        "version": version,
        "device_model": f"compute capability {capability}",
        "opset": opset,
        "dtypes": _dtypes(runtime, version, capability),
        "quantizations": _quantizations(version, capability),
        "device_memory_bytes": _MEMORY_GIB[capability] * 2**30,
        "compute_capability": capability,
        "devices": 1,
        "lacks": _lacks(version),
    }
    for runtime, version, opset, capabilities in _RUNTIMES
    for capability in capabilities
)
"""Targets that no worker here needs to have."""


def compatibility(
    configuration: Mapping[str, Any],
    measured_on: str | None,
    registered: Sequence[Mapping[str, Any]],
    builds: Mapping[str, Mapping[str, Any]],
) -> Compatibility:
    """`registered` are capabilities as workers sent them, each with its `key`; `builds` are builds by target."""
    model = configuration.get("model", {})
    fits = [
        TargetFit(
            target=target, fits=bool(found["built"]), lacks=found.get("reason"), basis="built with the real builder"
        )
        for target, found in builds.items()
    ]
    for capabilities in registered:
        lacks = models.unsupported(model, capabilities)
        key = str(capabilities["key"])
        basis = "measured there" if key == measured_on else "capabilities that a worker registered"
        fits.append(TargetFit(target=key, fits=lacks is None, lacks=lacks, basis=basis))
    tried = {(target.partition(" ")[0], target.rpartition(" ")[2]) for target in builds}
    runtimes = {(each["runtime"], str(each.get("compute_capability"))) for each in registered}
    for capabilities in KNOWN:
        if (capabilities["runtime"], capabilities["compute_capability"]) in runtimes | tried:
            continue
        lacks = models.unsupported(model, capabilities)
        target = f"{capabilities['runtime']} {capabilities['version']} on {capabilities['device_model']}"
        fits.append(TargetFit(target=target, fits=lacks is None, lacks=lacks, basis=MATRIX))
    able = sum(fit.fits for fit in fits)
    says = [
        f"{able} of {len(fits)} targets can run it; {len(builds)} were built with the real builder, and only "
        f"{measured_on or 'none'} was measured"
    ]
    says += [f"{fit.target}: {fit.lacks}" for fit in fits if fit.lacks]
    return Compatibility(targets=fits, says=says)
