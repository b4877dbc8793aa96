"""On which targets the recommended configuration can be built: those that workers registered, and known others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layers import model as models
from service.recommendation.schemas import Compatibility, TargetFit

MATRIX = "NVIDIA TensorRT support matrix"

KNOWN: tuple[dict[str, Any], ...] = tuple(
    {
        "runtime": runtime,
        "version": version,
        "device_model": f"compute capability {capability} ({name})",
        "opset": opset,
        "dtypes": ["float32", "float16", *(["bfloat16"] if float(capability) >= 8.0 else [])],
        "device_memory_bytes": memory_gib * 2**30,
        "compute_capability": capability,
    }
    for runtime, version, opset in (("tensorrt", "8.6", 17), ("tensorrt", "10 and later", 20))
    for capability, name, memory_gib in (("7.5", "T4", 16), ("8.0", "A100", 40), ("8.9", "L4", 24), ("9.0", "H100", 80))
)
"""Targets that no worker here needs to have: number formats by compute capability (bfloat16 from 8.0 on), the opset
that the version's parser reads, and the memory of a usual card."""


def compatibility(
    configuration: Mapping[str, Any], measured_on: str | None, registered: Sequence[Mapping[str, Any]]
) -> Compatibility:
    """`registered` are capabilities as workers sent them, each with its `key`."""
    model = configuration.get("model", {})
    fits: list[TargetFit] = []
    for capabilities in registered:
        lacks = models.unsupported(model, capabilities)
        key = str(capabilities["key"])
        basis = "measured there" if key == measured_on else "capabilities that a worker registered"
        fits.append(TargetFit(target=key, fits=lacks is None, lacks=lacks, basis=basis))
    runtimes = {(each["runtime"], str(each.get("compute_capability"))) for each in registered}
    for capabilities in KNOWN:
        if (capabilities["runtime"], capabilities["compute_capability"]) in runtimes:
            continue
        lacks = models.unsupported(model, capabilities)
        target = f"{capabilities['runtime']} {capabilities['version']} on {capabilities['device_model']}"
        fits.append(TargetFit(target=target, fits=lacks is None, lacks=lacks, basis=f"not tried; {MATRIX}"))
    able = sum(fit.fits for fit in fits)
    says = [f"{able} of {len(fits)} targets can run it; only {measured_on or 'none'} was measured"]
    says += [f"{fit.target}: {fit.lacks}" for fit in fits if fit.lacks]
    return Compatibility(targets=fits, says=says)
