"""Weights that are streamed from the host at each run: for engines that do not fit on the device.

TensorRT 10 and later, and TensorRT for RTX. It is allowed when an engine is built; how much stays on the device is said
before the engine has a context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base import Option
from ..protocol import RequestError

STREAMING_OPTIONS: Mapping[str, Option] = {"weights_mib": Option(default=0, minimum=0, maximum=1 << 20)}
"""0: all weights stay on the device."""


def allow_streaming(trt: Any, config: Any, options: Mapping[str, int]) -> None:
    """Configure a build for STREAMING_OPTIONS. Raises RequestError where the version cannot."""
    if not options["weights_mib"]:
        return
    if "WEIGHT_STREAMING" not in trt.BuilderFlag.__members__:
        raise RequestError("unsupported", f"{trt.__name__} {trt.__version__} does not stream weights")
    config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING)


def stream_weights(engine: Any, options: Mapping[str, int]) -> None:
    """Let as many of an engine's weights stay on the device as it was built for; all of them, where they are fewer.

    Raises RequestError where the library does otherwise.
    """
    mib = options.get("weights_mib", 0)
    if not mib:
        return
    wanted = min(mib << 20, engine.streamable_weights_size)
    engine.weight_streaming_budget_v2 = wanted
    if engine.weight_streaming_budget_v2 != wanted:
        raise RequestError(
            "unsupported",
            f"{wanted:,} bytes of weights were to stay on the device; the library keeps "
            f"{engine.weight_streaming_budget_v2:,} there",
        )
