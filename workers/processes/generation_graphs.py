"""The graphs that the torch child writes of a model that generates, and those that it keeps for weights to come."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from layers.configuration import Configuration
from layers.declarations.inference.generation import GenerationConfig
from layers.export.generation_export import GenerationTransplant, export_decode, export_prefill
from layers.export.transplant import has_folded_tables
from layers.modules.generation import GenerativeModel
from workers.engine.protocol import Request, RequestError


class GenerationGraphs:
    """Of one model. At each shape the graphs that were exported first are kept, as `transplant` of a request says."""

    def __init__(self) -> None:
        self._kept: dict[GenerationConfig, GenerationTransplant] = {}

    def write(self, deployed: nn.Module, configuration: Configuration, request: Request) -> bool:
        """Write the graphs that a request `export_generation` names; whether the weights were put into earlier ones.

        deployed: in the formats of its engines, on the CPU. Raises RequestError("invalid") if it generates nothing.
        """
        model = configuration["model"]
        if not isinstance(deployed, GenerativeModel):
            raise RequestError("invalid", f"a {model['kind']} generates nothing: a decoder does")
        generation = GenerationConfig.of(model, configuration["inference"])
        prefill, opset = Path(request["prefill"]), request["opset"]
        steps = {int(capacity): Path(path) for capacity, path in request["steps"].items()}
        kept = self._kept.pop(generation, None)
        transplant = kept if request.get("transplant") == "use" else None
        if request.get("transplant") == "prepare" and not has_folded_tables(model):
            transplant = GenerationTransplant.of(deployed, generation, prefill, steps, opset=opset)
        if transplant is None:
            export_prefill(deployed, generation, prefill, opset=opset)
            export_decode(deployed, generation, steps, opset=opset)
            return False
        transplant.write(deployed, prefill, steps)
        self._kept[generation] = transplant
        return True

    def clear(self) -> None:
        """Forget the model's."""
        self._kept.clear()
