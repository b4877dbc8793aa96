"""What a version of TensorRT supports on a compute capability, where the library does not say it; with sources.

Masks, position embeddings, head sizes and activations are not limited here: attention is exported as matrix products
and a softmax, which every version takes (held by the walks over all layers in tests/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SUPPORT_MATRIX = "TensorRT support matrix, hardware and precision"
OPERATORS = "onnx-tensorrt, docs/operators.md of the release"
STREAMING = "TensorRT, BuilderFlag.WEIGHT_STREAMING, for strongly typed networks"
STRONG_TYPING = "TensorRT, NetworkDefinitionCreationFlag.STRONGLY_TYPED"
RTX_SUPPORT = "TensorRT for RTX support matrix"
RTX_TIMINGS = "its bindings since 1.2: timing cache operations are no-ops"
OLD_TIMINGS = "tried: 8.6.0 does not read back the entries that it has just written for a Transformer's graph"
RTX_BUILDER = "tried: for 7.5 the builder of TensorRT for RTX 1.7.1 says that FP32 GEMM is not supported"

_PRECISIONS: Mapping[str, tuple[tuple[int, int], tuple[int, int], str]] = {
    "float32": ((0, 0), (0, 0), SUPPORT_MATRIX),
    "tf32": ((0, 0), (8, 0), SUPPORT_MATRIX),
    "float16": ((0, 0), (5, 3), SUPPORT_MATRIX),
    "bfloat16": ((9, 0), (8, 0), SUPPORT_MATRIX),
}
"""Name -> the least version of `tensorrt`, the least compute capability, source."""

_RTX_PRECISIONS: Mapping[str, tuple[tuple[int, int], str]] = {
    "float32": ((8, 0), RTX_BUILDER),
    "tf32": ((8, 0), RTX_SUPPORT),
    "float16": ((7, 5), RTX_SUPPORT),
    "bfloat16": ((8, 0), RTX_SUPPORT),
}

_QUANTIZATIONS: Mapping[str, tuple[tuple[int, int], tuple[int, int], str]] = {
    "int8": ((0, 0), (6, 1), SUPPORT_MATRIX),
    "fp8": ((10, 0), (8, 9), SUPPORT_MATRIX),
}

_RTX_QUANTIZATIONS: Mapping[str, tuple[tuple[int, int], str]] = {
    "int8": ((8, 0), RTX_BUILDER),
    "fp8": ((8, 9), RTX_SUPPORT),
}

_SHORT_FLOAT_OPSET = 19
"""From this opset on QuantizeLinear takes float16."""

_RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities that TensorRT for RTX runs on: GeForce and RTX cards; not 9.0 and 10.0 of the data center."""

_STRONGLY_TYPED = (10, 0)

_TIMINGS_READ_BACK = (10, 0)

_STREAMS_WEIGHTS = (10, 0)

_OLDEST = {"tensorrt": (8, 6), "tensorrt_rtx": (1, 4)}


@dataclass(frozen=True)
class Limits:
    """`lacks`: a feature that is missing -> why, with the source."""

    opset: int
    dtypes: tuple[str, ...]
    quantizations: tuple[str, ...]
    runs: bool
    build_options: tuple[str, ...]
    """those that a sweep may set"""
    lacks: Mapping[str, str]


def limits(runtime: str, version: str, capability: tuple[int, int] | None) -> Limits:
    """What this version does on a device of this compute capability; None: no device, so all that can be built."""
    number = _number(version)
    lacks: dict[str, str] = {}
    runs = True
    if number < _OLDEST[runtime]:
        runs = False
        lacks["execution"] = f"{runtime} {version} is older than {_dotted(_OLDEST[runtime])}, the oldest that is tested"
    if runtime == "tensorrt_rtx":
        if capability is None:
            runs = False
            lacks["execution"] = "there is no NVIDIA GPU with a working driver here"
        elif capability not in _RTX_CAPABILITIES:
            runs = False
            known = ", ".join(map(_dotted, _RTX_CAPABILITIES))
            lacks["execution"] = (
                f"TensorRT for RTX runs on compute capability {known}, not {_dotted(capability)}: install tensorrt "
                f"({RTX_SUPPORT})"
            )
    if runtime == "tensorrt" and number < _STRONGLY_TYPED:
        lacks["mixed precision"] = (
            f"needs tensorrt {_dotted(_STRONGLY_TYPED)} or later, whose networks are strongly typed: this one runs "
            f"a float32 layer in float16 where that is faster ({STRONG_TYPING})"
        )
    build_options = ("optimization_level", "workspace_mib")
    if runtime == "tensorrt" and number < _STREAMS_WEIGHTS:
        lacks["weight streaming"] = f"needs tensorrt {_dotted(_STREAMS_WEIGHTS)} or later ({STREAMING})"
    else:
        build_options += ("weights_mib",)
    if (why := no_timing_cache(runtime, version)) is not None:
        lacks["timing cache"] = why
    read = opset(runtime, version)
    if read < _SHORT_FLOAT_OPSET:
        lacks["quantization of float16"] = (
            f"needs tensorrt 10.0 or later: the parser of this one reads opset {read}, which quantizes float32 alone "
            f"({OPERATORS})"
        )
    dtypes, quantizations = (
        _there(lacks, what, _why_not(runtime, number, capability, of_tensorrt, of_rtx))
        for what, of_tensorrt, of_rtx in (
            ("dtype", _PRECISIONS, _RTX_PRECISIONS),
            ("quantization", _QUANTIZATIONS, _RTX_QUANTIZATIONS),
        )
    )
    return Limits(read, dtypes, quantizations, runs, build_options, lacks)


def _there(lacks: dict[str, str], what: str, found: Mapping[str, str | None]) -> tuple[str, ...]:
    """Those that are there; why the others are not is added to `lacks`."""
    lacks |= {f"{what} {name}": why for name, why in found.items() if why is not None}
    return tuple(name for name, why in found.items() if why is None)


def opset(runtime: str, version: str) -> int:
    """The highest ONNX opset that the version's parser reads. It does not refuse a newer one: it misreads it.

    8.6 says 17, 10.0 and later at least 20 (onnx-tensorrt, docs/operators.md), and nothing newer is exported.
    """
    return 17 if runtime == "tensorrt" and _number(version) < (10, 0) else 20


def no_timing_cache(runtime: str, version: str) -> str | None:
    """Why timings of kernels are not kept between builds; None where they are."""
    if runtime == "tensorrt_rtx":
        return f"TensorRT for RTX times no kernels while it builds ({RTX_TIMINGS})"
    if _number(version) < _TIMINGS_READ_BACK:
        return f"needs tensorrt {_dotted(_TIMINGS_READ_BACK)} or later ({OLD_TIMINGS})"
    return None


def _why_not(
    runtime: str,
    number: tuple[int, int],
    capability: tuple[int, int] | None,
    of_tensorrt: Mapping[str, tuple[tuple[int, int], tuple[int, int], str]],
    of_rtx: Mapping[str, tuple[tuple[int, int], str]],
) -> dict[str, str | None]:
    """Name -> why it is not there; None where it is."""
    if runtime == "tensorrt_rtx":
        return {name: _too_old(capability, least, source) for name, (least, source) in of_rtx.items()}
    found: dict[str, str | None] = {}
    for name, (least_version, least_capability, source) in of_tensorrt.items():
        if number < least_version:
            found[name] = f"needs tensorrt {_dotted(least_version)} or later ({source})"
        else:
            found[name] = _too_old(capability, least_capability, source)
    return found


def _too_old(capability: tuple[int, int] | None, least: tuple[int, int], source: str) -> str | None:
    if capability is None or capability >= least:
        return None
    return f"needs compute capability {_dotted(least)}, this is {_dotted(capability)} ({source})"


def _number(version: str) -> tuple[int, int]:
    parts = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    return (parts[0], parts[1]) if len(parts) == 2 else (0, 0)


def _dotted(pair: tuple[int, int]) -> str:
    return f"{pair[0]}.{pair[1]}"
