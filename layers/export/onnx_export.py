"""nn.Module -> ONNX in the opset that the target reads: the one artifact that every target builds from.

Also the loss graph, which runs after the engine on its device, so that logits do not travel.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.export import Dim

from layers.export.operator_tables import operators_listed_once
from layers.export.opset import LOWEST_OPSET, OpsetError, check_opset, lower
from layers.export.weights import weights_bytes
from layers.modules.dtypes import set_dtypes

__all__ = [
    "HIGHEST_OPSET",
    "LOWEST_OPSET",
    "ONE_FILE_BYTES",
    "OpsetError",
    "cast_copy",
    "check_opset",
    "export",
    "export_loss",
    "exported",
    "external_data",
    "graph_opset",
    "save",
    "warm_up",
    "with_sizes",
]

HIGHEST_OPSET = 20
"""Nothing newer is needed; graphs for targets that read more are in this one."""

EXPORTER_LOWEST_OPSET = 18
"""torch's exporter emits nothing older; 17 is made from it by `layers.export.opset.lower`."""

ONE_FILE_BYTES = 1_500_000_000
"""A protobuf ends at 2 GiB: above this, weights lie in a file beside the graph."""


def graph_opset(opset: int) -> int:
    """The opset that graphs for a target are written in, if `opset` is the highest that it reads."""
    if opset < LOWEST_OPSET:
        raise OpsetError(f"opset {opset} is too old: at least {LOWEST_OPSET} is needed (LayerNormalization)")
    return min(opset, HIGHEST_OPSET)


def cast_copy(module: nn.Module, dtype: str) -> nn.Module:
    """A copy of a model's `module` for an engine, in evaluation mode; the given one is left as it is.

    Its parameters are in `dtype`, but for those of layers whose configurations name a format of their own.
    """
    return set_dtypes(copy.deepcopy(module).eval(), dtype)


def export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    path: Path | str,
    *,
    opset: int,
    input_names: Sequence[str],
    output_names: Sequence[str] = ("logits",),
    open_sizes: Sequence[Mapping[int, str]] = (),
) -> None:
    """Write `module`, traced at the static shapes of `inputs`, to `path` as ONNX, as `exported` makes it.

    Weights of more than 1.5 GB lie beside it in `<path>.data`.
    """
    model = exported(
        module, inputs, opset=opset, input_names=input_names, output_names=output_names, open_sizes=open_sizes
    )
    save(model, Path(path))


def exported(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    opset: int,
    input_names: Sequence[str],
    output_names: Sequence[str] = ("logits",),
    open_sizes: Sequence[Mapping[int, str]] = (),
) -> onnx.ModelProto:
    """`module`, traced at the static shapes of `inputs`, as ONNX.

    open_sizes: for each input the axes whose sizes are left open, each by a name (`with_sizes` sets them); the module
    takes its inputs as `*inputs` then.
    opset: the highest that the target reads; the graph is in it, or in HIGHEST_OPSET if that is lower.
    The module is traced in evaluation mode, in the number format that its parameters have (see `cast_copy`).
    The graph names no file or code of this machine.
    Raises OpsetError if an operator has no valid form in that opset.
    """
    target = graph_opset(opset)
    training = module.training
    module.eval()
    try:
        with _quiet(), operators_listed_once(), torch.no_grad():
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                opset_version=max(target, EXPORTER_LOWEST_OPSET),
                input_names=list(input_names),
                output_names=list(output_names),
                dynamic_shapes=_dynamic(open_sizes),
                verbose=False,
            )
    finally:
        module.train(training)
    if program is None:
        raise OpsetError("the exporter made no graph")
    model = program.model_proto
    if target < EXPORTER_LOWEST_OPSET:
        lower(model, target)
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import))
    _strip_traces(model)
    check_opset(model, target)
    return model


def with_sizes(graph: Path, sizes: Mapping[str, int], path: Path) -> None:
    """Write a graph whose open sizes are set, to `path`. Weights that lie beside it stay there, and are of both.

    Raises OpsetError if a size is left open, or an inner shape would follow from one.
    """
    model = onnx.load_model(graph, load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                if axis.dim_param not in sizes:
                    raise OpsetError(f"{value.name} has the open size {axis.dim_param}, which nobody sets")
                axis.dim_value = sizes[axis.dim_param]
    onnx.save_model(model, path)


def _dynamic(open_sizes: Sequence[Mapping[int, str]]) -> tuple[tuple[dict[int, Dim], ...]] | None:
    """As torch's exporter takes them."""
    names = dict.fromkeys(name for axes in open_sizes for name in axes.values())
    dims = {name: Dim(name, min=1) for name in names}
    return (tuple({axis: dims[name] for axis, name in axes.items()} for axes in open_sizes),) if dims else None


def warm_up() -> None:
    """Export a trivial module: the first export of a process imports and looks up what later ones only use."""
    exported(nn.Linear(1, 1), (torch.zeros(1, 1),), opset=HIGHEST_OPSET, input_names=("x",))


@contextmanager
def _quiet() -> Generator[None]:
    """Without what torch's exporter says about packages that are not needed here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            # Two inputs of the same open size: it keeps one of the names, as is meant.
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)
            yield
    finally:
        logger.setLevel(level)


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove stack traces and scopes: they hold paths of this machine, and make graphs differ that are the same."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for holder in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del holder.metadata_props[:]
        holder.doc_string = ""


def external_data(path: Path) -> Path:
    """Where the weights of a graph lie that are too many for one file."""
    return path.with_name(path.name + ".data")


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; weights that are too many for one file lie beside it."""
    if weights_bytes(model) <= ONE_FILE_BYTES:
        onnx.save_model(model, path)
        return
    data = external_data(path)
    data.unlink(missing_ok=True)
    onnx.save_model(model, path, save_as_external_data=True, location=data.name)


_LOGITS_TYPES = {
    "float32": TensorProto.FLOAT,
    "tf32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}


def export_loss(path: Path | str, *, logits_shape: Sequence[int], opset: int, dtype: str = "float32") -> None:
    """Write the graph of the weighted cross-entropy to `path`.

    Inputs: `logits` [.., V] of `dtype`, `targets` int32 [..] (each from 0 to V - 1, also if its weight is 0),
    `weights` float32 [..].
    Outputs, float32 scalars: `loss_sum` (nats), `weight_sum`, `correct` (weights of the places whose largest logit is
    the target's). Computed in float32; the largest logit is taken off first, so that no exponential overflows.
    opset: as in `export`.
    """
    target = graph_opset(opset)
    *leading, vocabulary = logits_shape
    inputs = [
        helper.make_tensor_value_info("logits", _LOGITS_TYPES[dtype], list(logits_shape)),
        helper.make_tensor_value_info("targets", TensorProto.INT32, leading),
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, leading),
    ]
    names = ("loss_sum", "weight_sum", "correct")
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in names]
    constants = [
        helper.make_tensor("rows_shape", TensorProto.INT64, [2], [-1, vocabulary]),
        helper.make_tensor("column_shape", TensorProto.INT64, [2], [-1, 1]),
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("all", TensorProto.INT64, [2], [0, 1]),
    ]
    # Weights multiply a column [rows, 1], so that every sum has two axes to name and none has to be left out.
    axes_are_input = target >= 18
    largest = (
        helper.make_node("ReduceMax", ["rows", "last"], ["largest"], keepdims=1)
        if axes_are_input
        else helper.make_node("ReduceMax", ["rows"], ["largest"], axes=[1], keepdims=1)
    )
    nodes = [
        helper.make_node("Cast", ["logits"], ["logits_float32"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["logits_float32", "rows_shape"], ["rows"]),
        helper.make_node("Reshape", ["targets", "column_shape"], ["target_column"]),
        helper.make_node("Reshape", ["weights", "column_shape"], ["weight_column"]),
        largest,
        helper.make_node("Sub", ["rows", "largest"], ["shifted"]),
        helper.make_node("Exp", ["shifted"], ["exponentials"]),
        helper.make_node("ReduceSum", ["exponentials", "last"], ["partition"], keepdims=1),
        helper.make_node("Log", ["partition"], ["log_partition"]),
        helper.make_node("GatherElements", ["shifted", "target_column"], ["target_shifted"], axis=1),
        helper.make_node("Sub", ["log_partition", "target_shifted"], ["losses"]),
        helper.make_node("Mul", ["losses", "weight_column"], ["weighted_losses"]),
        helper.make_node("ReduceSum", ["weighted_losses", "all"], ["loss_sum"], keepdims=0),
        helper.make_node("ReduceSum", ["weight_column", "all"], ["weight_sum"], keepdims=0),
        helper.make_node("ArgMax", ["rows"], ["best_int64"], axis=1, keepdims=1),
        helper.make_node("Cast", ["best_int64"], ["best"], to=TensorProto.INT32),
        helper.make_node("Equal", ["best", "target_column"], ["hits"]),
        helper.make_node("Cast", ["hits"], ["hits_float32"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["hits_float32", "weight_column"], ["weighted_hits"]),
        helper.make_node("ReduceSum", ["weighted_hits", "all"], ["correct"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "cross_entropy", inputs, outputs, constants)
    imports = [helper.make_opsetid("", target)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports))
    check_opset(model, target)
    onnx.save_model(model, Path(path))
