"""Other weights for a graph that was exported before, in place of a second export.

The exporter keeps few names of parameters: matrices come out transposed, under other names, or more than once. So the
graph is exported of a copy of the module whose parameters hold random values of their own, and each initializer is
found by its value among the parameters and their transposes. A value that would make the exporter fold or merge
something (zeros, ones) is in no parameter then, so that the graph holds for any weights.

What is calculated of a parameter while it is exported (a table that is gathered from, a sum of two parameters) is found
nowhere: such a module has no transplant. If only some uses of a parameter are folded, the graph computes another
function with other weights: hold what comes of a transplant against the module.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from layers.export.onnx_export import external_data
from layers.parameter import Scalar

_FORMATS: Mapping[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
}


KNOWN_BY = 512
"""Values by which a parameter is looked up, before all are compared."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """The parameter that an initializer holds, and the order in which its axes lie there."""

    parameter: str
    axes: tuple[int, ...]
    rows: int | None = None
    """Of a table that is longer than the sequence, the first ones."""


@dataclass(frozen=True, slots=True)
class Transplant:
    """A graph, and where the weights of its module lie in it."""

    _model: onnx.ModelProto
    _origins: Mapping[str, _Origin]
    """By initializer."""

    @classmethod
    def of(cls, graph: Path, drawn: nn.Module, unread: Collection[str] = ()) -> Transplant | None:
        """Of a graph that was exported of `drawn`; None if a parameter of it is found nowhere in the graph.

        `unread`: the parameters that the graph has no use for.
        """
        # Weights in a file of their own are so many that the export's time does not count.
        known = None if external_data(graph).exists() else _by_first_values(drawn)
        if known is None:
            return None
        model = onnx.load_model(graph)
        parameters = dict(drawn.named_parameters())
        origins: dict[str, _Origin] = {}
        for initializer in model.graph.initializer:
            if initializer.data_type in _FORMATS:
                values = _read(initializer)
                found = known.get(_key(values.size, _first(values)))
                if found is not None and found.holds(values, parameters):
                    origins[initializer.name] = found.origin
        held = {origin.parameter for origin in origins.values()}
        held |= set(unread)
        longer = {name: parameter for name, parameter in drawn.named_parameters() if name not in held}
        for initializer in model.graph.initializer if longer else ():
            if initializer.data_type in _FORMATS and initializer.name not in origins:
                origin = _first_rows(_read(initializer), longer)
                if origin is not None:
                    origins[initializer.name] = origin
        if not longer.keys() <= {origin.parameter for origin in origins.values()}:
            return None
        return cls(model, origins)

    def write(self, module: nn.Module, path: Path) -> None:
        """Write the graph with the weights of `module`, which is in the formats of the drawn one."""
        weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
        for initializer in self._model.graph.initializer:
            origin = self._origins.get(initializer.name)
            if origin is not None:
                values = weights[origin.parameter].permute(origin.axes)
                _write(initializer, values if origin.rows is None else values[: origin.rows])
        onnx.save_model(self._model, path)

    def unmatched(self) -> dict[str, NDArray[np.float32]]:
        """The graph's constants of floating point that hold no parameter, by name."""
        return {
            initializer.name: _read(initializer)
            for initializer in self._model.graph.initializer
            if initializer.data_type in _FORMATS and initializer.name not in self._origins
        }


def has_folded_tables(model: Mapping[str, Scalar]) -> bool:
    """Whether tables of a model are gathered from while it is exported: no initializer holds them."""
    positions = (value for name, value in model.items() if name.endswith("position_embedding_type"))
    return "relative" in positions or bool(model.get("embedding.prompt_length"))


def drawn_copy(module: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with random values from 0.25 to 1 in every parameter, each in the format that it has.

    Raises nothing for parameters that come out alike: `Transplant.of` answers None for them.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in drawn.parameters():
            values = torch.rand(parameter.shape, generator=generator, dtype=torch.float32) * 0.75 + 0.25
            parameter.copy_(values.to(parameter.dtype))
    return drawn


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A parameter in one format and one order of its axes."""

    origin: _Origin
    dtype: torch.dtype

    def holds(self, values: NDArray[np.float32], parameters: Mapping[str, nn.Parameter]) -> bool:
        """Whether these are all its values."""
        laid_out = parameters[self.origin.parameter].detach().permute(self.origin.axes)
        return np.array_equal(laid_out.to(self.dtype).cpu().float().numpy().ravel(), values.ravel())


def _by_first_values(module: nn.Module) -> dict[tuple[int, bytes], _Candidate] | None:
    """First values in the order of the axes -> where they are from; None if two parameters have the same.

    A parameter is known by its values in each format: if a layer has another one, it is cast while it is exported.
    """
    found: dict[tuple[int, bytes], _Candidate] = {}
    for name, parameter in module.named_parameters():
        values = parameter.detach().cpu().float().numpy()
        for axes in itertools.permutations(range(values.ndim)):
            first = torch.from_numpy(_first(values.transpose(axes)))
            for dtype in _FORMATS.values():
                key = _key(values.size, first.to(dtype).float().numpy())
                candidate = found.setdefault(key, _Candidate(_Origin(name, axes), dtype))
                if candidate.origin.parameter != name:
                    return None
    return found


def _first(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first values: a few hundred numbers that were drawn are never alike."""
    return values.flat[:KNOWN_BY]


def _key(size: int, first: NDArray[np.float32]) -> tuple[int, bytes]:
    """What so many values, which begin so, are looked up by."""
    return size, first.tobytes()


def _first_rows(values: NDArray[np.float32], tables: Mapping[str, nn.Parameter]) -> _Origin | None:
    """The table whose first rows these values are."""
    for name, table in tables.items():
        rows = values.size // table.shape[-1] if table.ndim == 2 else 0
        if 0 < rows < len(table) and values.size == rows * table.shape[-1]:
            for dtype in _FORMATS.values():
                first = table.detach()[:rows].to(dtype).cpu().float().numpy()
                if np.array_equal(first.ravel(), values.ravel()):
                    return _Origin(name, (0, 1), rows)
    return None


def _read(initializer: onnx.TensorProto) -> NDArray[np.float32]:
    return np.ascontiguousarray(numpy_helper.to_array(initializer), np.float32)


def _write(initializer: onnx.TensorProto, values: Tensor) -> None:
    """Replace an initializer's values by as many others, in its own format."""
    stored = values.cpu().contiguous().to(_FORMATS[initializer.data_type])
    for field in ("float_data", "int32_data"):
        initializer.ClearField(field)
    initializer.raw_data = stored.view(torch.uint8).numpy().tobytes()
