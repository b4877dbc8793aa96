"""What a target lacks for a model, by the capabilities that it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict

from layers.declarations import dtypes, quantization, tensor_parallel
from layers.declarations.inference.parameters import BUILD_OPTIONS
from layers.declarations.model import weights_bytes
from layers.parameter import Scalar


class Capabilities(TypedDict):
    """What a target can do, as a worker registers it."""

    runtime: str
    version: str
    device_model: str
    opset: int
    """The highest that it reads."""
    dtypes: list[str]
    device_memory_bytes: int
    quantizations: NotRequired[list[str]]
    devices: NotRequired[int]
    """That can share an engine."""
    link: NotRequired[str | None]
    """How they are connected."""
    compute_capability: NotRequired[str | None]
    build_only: NotRequired[bool]
    build_options: NotRequired[list[str]]
    lacks: NotRequired[dict[str, str]]
    """What a user might expect of it and does not get -> why."""


class Target(Capabilities):
    """Registered capabilities, with the name of the target."""

    key: str


LOWEST_OPSET = 17
"""LayerNormalization is an operator from opset 17 on."""


def unsupported(model: Mapping[str, Scalar], capabilities: Capabilities) -> str | None:
    """What the target lacks for this model, in words; None if it lacks nothing."""
    target = f"{capabilities['runtime']} {capabilities['version']} on {capabilities['device_model']}"
    if lacking := _lacking_dtype(model, capabilities) or quantization.lacking(
        model, capabilities.get("quantizations", ()), capabilities.get("lacks", {})
    ):
        return f"{target} {lacking}"
    if capabilities["opset"] < LOWEST_OPSET:
        return f"{target} reads ONNX opset {capabilities['opset']}: at least {LOWEST_OPSET} is needed"
    if lacking := tensor_parallel.lacking_devices(model, capabilities.get("devices", 1)):
        return f"{target} {lacking}"
    needed = weights_bytes(model) // int(model.get("tp_size") or 1)
    if needed > capabilities["device_memory_bytes"]:
        return f"the weights alone take {needed:,} bytes: {target} has {capabilities['device_memory_bytes']:,}"
    return None


def _lacking_dtype(model: Mapping[str, Scalar], capabilities: Capabilities) -> str | None:
    """Which number format, or mixture of them, a target does not run, in words without its name."""
    lacks = capabilities.get("lacks", {})
    named = dtypes.by_parameter(model)
    for path, dtype in named.items():
        if dtype not in capabilities["dtypes"]:
            what = dtype if path == "dtype" or dtype == model["dtype"] else f"{path} {dtype}"
            because = f": {lacks[f'dtype {dtype}']}" if f"dtype {dtype}" in lacks else ""
            return f"does not run {what} (it runs {', '.join(capabilities['dtypes'])}){because}"
    if len(set(named.values())) > 1 and dtypes.MIXED in lacks:
        differing = next(path for path, dtype in named.items() if dtype != model["dtype"])
        why = lacks[dtypes.MIXED]
        return f"does not run {differing} {named[differing]} in an engine of dtype {model['dtype']}: {why}"
    return None


def lacking_option(inference: Mapping[str, Scalar], capabilities: Capabilities) -> str | None:
    """What the target's builder does not take, in words; None if it takes all that is given."""
    for name in BUILD_OPTIONS:
        if name in inference and name not in capabilities.get("build_options", ()):
            return f"{capabilities['runtime']} {capabilities['version']} has no build option {name}: leave it out"
    return None
