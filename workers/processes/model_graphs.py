"""A module and the graphs that are written of it: whole, in parts for devices that share it, quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from layers.configuration import Configuration, TrialConfiguration
from layers.declarations import quantization
from layers.export.onnx_export import ONE_FILE_BYTES, export
from layers.export.shards.sharded_export import ExportForm, write_shards
from layers.export.transplant import Transplant, drawn_copy, has_folded_tables
from layers.parameter import Scalar
from layers.signature import Signature, signature_of


@dataclass(frozen=True, slots=True)
class MadeModel:
    """A module, and the configuration that it was made of."""

    module: nn.Module
    configuration: TrialConfiguration

    @property
    def signature(self) -> Signature:
        """Of the module at the shape that is measured."""
        return signature_of(self.configuration)

    def at(self, inference: dict[str, Scalar]) -> MadeModel:
        """The same module at another shape."""
        document: Configuration = {**self.configuration.document, "inference": inference}
        return MadeModel(self.module, TrialConfiguration.of(document))

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(given.name for given in self.signature.inputs)

    @property
    def choices(self) -> int:
        """Logits of one target: the dataset's vocabulary or its classes, or more if the model says so."""
        return self.signature.outputs[0].shape[-1]

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Zeros of the shapes and types that the module takes."""
        return tuple(torch.zeros(given.shape, dtype=getattr(torch, given.dtype)) for given in self.signature.inputs)


def write(made: MadeModel, deployed: nn.Module, path: Path, opset: int) -> None:
    """Write the graph of the module as it is deployed."""
    (output,) = made.signature.outputs
    export(
        deployed,
        made.example_inputs(),
        path,
        opset=opset,
        input_names=made.input_names,
        output_names=(output.name,),
    )


def is_shared(model: Mapping[str, Scalar]) -> bool:
    """Whether devices share the model."""
    return int(model.get("tp_size") or 1) > 1


def write_parts(made: MadeModel, deployed: nn.Module, path: Path, opset: int) -> None:
    """Write what each device does of a model that they share."""
    form = ExportForm(made.input_names, made.signature.outputs[0].name, opset)
    write_shards(deployed, made.configuration.model, made.example_inputs(), path, form)


def prepared_transplant(made: MadeModel, deployed: nn.Module, path: Path, opset: int) -> Transplant | None:
    """A graph of the module for any weights, and writes to `path`; None if there is none, or weights are so many
    that what is gained does not count."""
    weights_bytes = sum(parameter.nbytes for parameter in deployed.parameters())
    if has_folded_tables(made.configuration.model) or weights_bytes > ONE_FILE_BYTES:
        return None
    drawn = drawn_copy(deployed)
    write(made, drawn, path, opset)
    return Transplant.of(path, drawn)


def quantize(made: MadeModel, path: Path, calibration: Path) -> int:
    """Quantize the products of a float graph in place; answers how many."""
    # Imported here: most trials quantize nothing, and it brings ONNX Runtime into the process.
    from layers.export import quantization as products

    with np.load(calibration, allow_pickle=False) as arrays:
        inputs = {name: arrays[name] for name in made.input_names}
    return products.quantize(path, quantization.of_model(made.configuration.model), inputs)
