"""TensorRT for RTX, versions 1.4 and later: it runs on GeForce and RTX cards alone, and builds without any GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base import Option
from ..protocol import RequestError
from ..verbs import Capabilities
from . import cuda, support
from .engine import TensorRtEngine
from .plan_file import PlanFile


class TensorRtRtxEngine(TensorRtEngine):
    """TensorRT for RTX. Without a GPU that it runs on, it builds: for the compute capability that the options name."""

    runtime = "tensorrt_rtx"
    library = "tensorrt_rtx"
    build_turn = "stoppable"
    """It times no kernels: those are compiled where an engine is loaded."""
    build_options: Mapping[str, Option] = {
        **TensorRtEngine.build_options,
        "compute_capability": Option(default=0, minimum=0, maximum=999),
    }
    """compute_capability: ten times the number, 89 for 8.9. 0: the device's; without a device all that it knows."""

    def describe(self) -> Capabilities:
        if cuda.device_count():
            return super().describe()
        limits = support.limits(self.runtime, self.version, None)
        return {
            "runtime": self.runtime,
            "version": self.version,
            "device_model": "no GPU: it builds and does not run",
            "opset": limits.opset,
            "dtypes": list(limits.dtypes),
            "quantizations": list(limits.quantizations),
            "devices": 1,
            "device_memory_bytes": 0,
            "compute_capability": None,
            "build_only": True,
            "build_options": list(limits.build_options),
            "lacks": dict(limits.lacks),
        }

    def _builder(self) -> Any:
        return super()._builder() if cuda.device_count() else self._trt.Builder(self._log)

    def _config(self, builder: Any, network: Any, options: Mapping[str, int]) -> Any:
        config = super()._config(builder, network, options)
        wanted, known = options["compute_capability"], self._trt.ComputeCapability.__members__
        if wanted or cuda.device_count():
            name = f"SM{wanted}" if wanted else "CURRENT"
            if name not in known:
                capabilities = ", ".join(sorted(each[2:] for each in known if each.startswith("SM")))
                raise RequestError(
                    "unsupported",
                    f"{self.runtime} {self.version} builds for compute capability {capabilities} (times ten), "
                    f"not {wanted}",
                )
            config.num_compute_capabilities = 1
            config.set_compute_capability(known[name], 0)
        return config

    def _built_for(self, options: Mapping[str, int]) -> str:
        if options["compute_capability"]:
            return f"compute capability {options['compute_capability'] / 10}"
        return super()._built_for(options) if cuda.device_count() else "any compute capability"

    def _weigh(self, plan: PlanFile) -> tuple[int | None, int | None]:
        return super()._weigh(plan) if cuda.device_count() else (None, None)
