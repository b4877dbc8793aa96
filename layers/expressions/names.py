"""The names of parameters: paths below `model`, or `training.…` and `inference.…`; and what else users call them.

A document may add `variables.…` of its own: `Names` knows them too. Of a variable with `per_layer` each layer has its
own, `layers.3.variables.…`, like a parameter of its block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from layers.declarations.inference.parameters import INFERENCE
from layers.declarations.model import APPLIES, DECLARATIONS, LATER
from layers.declarations.per_layer import BLOCK_PATHS, LayerName, base_path, is_section, layer_name
from layers.declarations.training import TRAINING
from layers.expressions.compiler import Expression
from layers.expressions.metric_names import MetricNames
from layers.metrics import METRICS, split_name
from layers.parameter import REQUIRED, Parameter, Scalar
from layers.problems import did_you_mean

DECLARED: dict[str, Parameter] = {
    **DECLARATIONS,
    **{f"training.{name}": parameter for name, parameter in TRAINING.items()},
    **{f"inference.{name}": parameter for name, parameter in INFERENCE.items()},
}
"""Every parameter by its full name."""


def declaration(name: str) -> Parameter | None:
    """The declaration of a parameter by its full name, which may be one layer's own; None if there is none."""
    found = layer_name(name)
    if found is None:
        return DECLARED.get(name)
    return DECLARED[found.path] if found.path in BLOCK_PATHS else None


VARIABLES = "variables"
"""The section of a document's own variables."""


def is_variable(name: str) -> bool:
    """Whether a full name is that of a document's own variable, also of one layer's."""
    return base_path(name).startswith(f"{VARIABLES}.")


RELATIVE_ATTENTION = "attention.relative_attention"
POSITION_TYPE = "attention.position_embedding_type"
RELATIVE = "relative"
"""`relative_attention: true` is another spelling of `position_embedding_type: relative`."""


class UnknownNameError(ValueError):
    """A name that is no parameter, or could be several."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message} ({remedy})")
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Names:
    """The names that one document may use: those of the declarations and of its own variables."""

    variables: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    """By their full names, `variables.…`."""
    of_layers: frozenset[str] = frozenset()
    """Those of them of which each layer has its own."""

    def declaration(self, name: str) -> Parameter | None:
        """The declaration of a parameter or variable by its full name, which may be one layer's own; None if there
        is none."""
        path = base_path(name)
        is_known = path in self.of_layers if path != name else path in self.variables
        return self.variables[path] if is_known else declaration(name)

    def has_below(self, name: str) -> bool:
        """Whether parameters lie below a name: it is a section."""
        if base_path(name) == VARIABLES:
            return bool(self.of_layers if name != VARIABLES else self.variables)
        return is_section(name) or any(known.startswith(f"{name}.") for known in DECLARED)

    def completed(self, expression: Expression, metrics: MetricNames | None = None) -> Expression:
        """`expression` with every name in full. `metrics` may be named, too, if they are given.

        Raises UnknownNameError, MetricNameError.
        """
        return expression.renamed(lambda name: self._full_name(name, metrics))

    def _full_name(self, name: str, metrics: MetricNames | None) -> str:
        """The full name that `name` in an expression stands for: itself, or the only one that ends with it."""
        if self.declaration(name) is not None:
            return name
        if metrics is not None and split_name(name)[0] in METRICS:
            return metrics.resolve(name)
        if (layer := layer_name(name)) is not None:
            return self._full_name_of_layer(layer)
        if name in (RELATIVE_ATTENTION, "relative_attention"):
            raise UnknownNameError(f"{name} is another spelling", f"write {POSITION_TYPE} == '{RELATIVE}'")
        if name in LATER:
            raise UnknownNameError(f"{name}: {LATER[name]} is not something that Layersweep builds", "leave it out")
        if name.startswith("model."):
            raise UnknownNameError(
                f"{name} is not a parameter", f"names begin below model: write {name.removeprefix('model.')}"
            )
        every = [*DECLARED, *self.variables]
        ends = [path for path in every if path.endswith(f".{name}")]
        if len(ends) == 1:
            return ends[0]
        if ends:
            raise UnknownNameError(f"{name} could be any of {', '.join(ends)}", "write the full name")
        near_metric = did_you_mean(name, metrics or METRICS).startswith("did")
        if metrics is not None:
            what = "metric" if near_metric and "." not in name else "parameter or metric"
            raise UnknownNameError(f"{name} is not a {what}", did_you_mean(name, [*every, *metrics]))
        remedy = did_you_mean(name, every)
        if near_metric and not remedy.startswith("did"):
            remedy = "metrics are known once a trial is measured: conditions on them belong in constraints"
        raise UnknownNameError(f"{name} is not a parameter", remedy)

    def _full_name_of_layer(self, name: LayerName) -> str:
        path = self._full_name(name.path, None)
        if path not in BLOCK_PATHS and path not in self.of_layers:
            raise UnknownNameError(f"{name}: {path} is the same in all layers", f"write {path}")
        return str(name._replace(path=path))


def default_of(name: str) -> Scalar | None:
    """The default of a parameter if that is one value, whatever the other parameters are; else None."""
    path = base_path(name)
    declared = DECLARED.get(path)
    if declared is None or path in APPLIES or declared.default is REQUIRED:
        return None
    return declared.default


def unknown_parameter(path: str, section: str) -> tuple[str, str]:
    """What is wrong with `path` in a document's `section`, and the remedy."""
    if path in LATER:
        return f"{path}: {LATER[path]} is not something that Layersweep builds yet", "leave it out"
    if (layer := layer_name(path)) is not None:
        if layer.path in DECLARED:
            return f"{layer.path} is the same in all layers", f"give {layer.path}"
        return f"{path} is not a parameter", did_you_mean(layer.path, BLOCK_PATHS)
    names = _below(DECLARED, section)
    local = path.removeprefix(f"{section}.")
    near = did_you_mean(local, names)
    if not near.startswith("did"):
        parent = local.rpartition(".")[0]
        siblings = [name for name in names if name.rpartition(".")[0] == parent]
        near = did_you_mean(local, siblings or names)
    return f"{path} is not a parameter", near


def _below(declared: Mapping[str, Parameter], section: str) -> list[str]:
    if section == "model":
        return [name for name in declared if not name.startswith(("training.", "inference."))]
    return [name.removeprefix(f"{section}.") for name in declared if name.startswith(f"{section}.")]
