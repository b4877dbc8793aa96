"""On which targets the recommended configuration can be built: tried, registered by workers, or known otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from layers import targets
from layers.capabilities import Capabilities, Target, unsupported
from layers.configuration import Configuration
from layers.declarations.dtypes import MIXED
from layers.declarations.quantization import IN_HALF
from layers.parameter import Scalar
from service.recommendation.schemas import Compatibility, TargetFit


class TriedBuild(TypedDict):
    """What a worker found when it built the model for another target."""

    built: bool
    reason: NotRequired[str]
    """Why not."""


MATRIX = "not tried: docs/targets.md"

_RUNTIMES = (
    ("tensorrt", "8.6", (8, 6), 17, ("7.5", "8.0", "8.9", "9.0")),
    ("tensorrt", "10 and 11", (10, 0), 20, ("7.5", "8.0", "8.9", "9.0", "10.0")),
    ("tensorrt_rtx", "1.4 and later", (1, 4), 20, ("7.5", "8.6", "8.9", "12.0")),
)
"""Runtime, its versions in words and the first of them, the opset that their parser reads, and the compute capabilities
that they run on."""

_MEMORY_GIB = {"7.5": 16, "8.0": 40, "8.6": 24, "8.9": 24, "9.0": 80, "10.0": 180, "12.0": 32}
"""Of a usual card: T4, A100, RTX 3090, L4, H100, B200, RTX 5090."""


def _known(runtime: str, in_words: str, version: tuple[int, int], opset: int, capability: str) -> Capabilities:
    """Capabilities as a worker sends them, by what `layers.targets` says of the runtime."""
    major, minor = map(int, capability.split("."))
    lacks: dict[str, str] = {}

    def there(what: str, needs: Mapping[str, targets.Needs | str]) -> list[str]:
        missing = {
            name: str(each)
            for name, each in needs.items()
            if isinstance(each, str) or not each.met(version, (major, minor))
        }
        lacks.update({f"{what} {name}".strip(): why for name, why in missing.items()})
        return [name for name in needs if name not in missing]

    dtypes = there("dtype", targets.DTYPES[runtime])
    quantizations = there("quantization", targets.QUANTIZATIONS[runtime])
    there("", {MIXED: targets.MIXED[runtime], IN_HALF: targets.QUANTIZED_HALF[runtime]})
    return {
        "runtime": runtime,
        "version": in_words,
        "device_model": f"compute capability {capability}",
        "opset": opset,
        "dtypes": dtypes,
        "quantizations": quantizations,
        "device_memory_bytes": _MEMORY_GIB[capability] * 2**30,
        "compute_capability": capability,
        "devices": 1,
        "lacks": lacks,
    }


def _name(capabilities: Capabilities) -> str:
    return f"{capabilities['runtime']} {capabilities['version']} on {capabilities['device_model']}"


def _lacks(model: Mapping[str, Scalar], capabilities: Capabilities) -> str | None:
    """What a target lacks, in words that stand beside its name."""
    lacks = unsupported(model, capabilities)
    return lacks and lacks.removeprefix(f"{_name(capabilities)} ")


KNOWN: tuple[Capabilities, ...] = tuple(
    _known(runtime, in_words, version, opset, capability)
    for runtime, in_words, version, opset, capabilities in _RUNTIMES
    for capability in capabilities
)
"""Targets that no worker here needs to have."""


def compatibility(
    configuration: Configuration,
    measured_on: str | None,
    registered: Sequence[Target],
    builds: Mapping[str, TriedBuild],
) -> Compatibility:
    """`registered` are capabilities as workers sent them, each with its `key`; `builds` are builds by target."""
    model = configuration["model"]
    fits = [
        TargetFit(target=target, fits=found["built"], lacks=found.get("reason"), basis="built with the real builder")
        for target, found in builds.items()
    ]
    for capabilities in registered:
        lacks = _lacks(model, capabilities)
        key = capabilities["key"]
        basis = "measured there" if key == measured_on else "capabilities that a worker registered"
        fits.append(TargetFit(target=key, fits=lacks is None, lacks=lacks, basis=basis))
    tried = {(target.partition(" ")[0], target.rpartition(" ")[2]) for target in builds}
    runtimes = {(each["runtime"], str(each.get("compute_capability"))) for each in registered}
    for capabilities in KNOWN:
        if (capabilities["runtime"], capabilities.get("compute_capability")) in runtimes | tried:
            continue
        lacks = _lacks(model, capabilities)
        target = _name(capabilities)
        fits.append(TargetFit(target=target, fits=lacks is None, lacks=lacks, basis=MATRIX))
    able = sum(fit.fits for fit in fits)
    says = [
        f"{able} of {len(fits)} targets can run it; {len(builds)} were built with the real builder, and only "
        f"{measured_on or 'none'} was measured"
    ]
    says += [f"{fit.target}: {fit.lacks}" for fit in fits if fit.lacks]
    return Compatibility(targets=fits, says=says)
