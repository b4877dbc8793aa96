"""ONNX file -> TensorRT network and builder configuration. The library is passed in: engine.py imports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import onnx_file
from ..base import Option
from ..protocol import RequestError
from . import support
from .log import Complaints

BUILD_OPTIONS: Mapping[str, Option] = {
    "optimization_level": Option(default=3, minimum=0, maximum=5),
    "workspace_mib": Option(default=0, minimum=0, maximum=1 << 20),
    "tf32": Option(default=0, minimum=0, maximum=1),
}
"""workspace_mib 0: all of the device's memory, the library's default."""

_TACTIC_SOURCES = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
"""The library's own; those of cuBLAS and cuDNN are left out."""


def readable_graph(runtime: str, version: str, onnx: Path) -> onnx_file.Weights:
    """The graph's weights. Raises RequestError where it is no ONNX file, or in an opset that is not read here."""
    try:
        weights, opset = onnx_file.weights(onnx), onnx_file.opset(onnx)
    except onnx_file.OnnxFileError as problem:
        raise RequestError("build", f"{onnx.name} is no ONNX file: {problem}") from problem
    highest = support.opset(runtime, version)
    if opset > highest:
        raise RequestError(
            "unsupported",
            f"{onnx.name} is in opset {opset}; {runtime} {version} reads up to {highest} and would misread it in "
            "silence",
        )
    return weights


def small_network(trt: Any, builder: Any) -> Any:
    """A product and a softmax: its build loads the library's kernels, and little else."""
    network = builder.create_network(_creation_flags(trt))
    given = network.add_input("x", trt.float32, (1, 64, 64))
    product = network.add_matrix_multiply(given, trt.MatrixOperation.NONE, given, trt.MatrixOperation.TRANSPOSE)
    shares = network.add_softmax(product.get_output(0))
    shares.axes = 1 << 2
    network.mark_output(shares.get_output(0))
    return network


def parsed(trt: Any, log: Any, builder: Any, onnx: Path, complaints: Complaints) -> tuple[Any, Any]:
    """The network and its parser, which must outlive it. Raises RequestError("build")."""
    network = builder.create_network(_creation_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx)):
        logged = [text for text in complaints.errors if "node ---" not in text]
        complaints.errors[:] = logged or [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise complaints.failure("build", f"{trt.__name__} {trt.__version__} cannot parse {onnx.name}")
    if network.num_outputs == 0:
        raise RequestError("build", f"{onnx.name} has no outputs")
    for tensor in (network.get_input(index) for index in range(network.num_inputs)):
        if any(size < 0 for size in tuple(tensor.shape)):
            shape = [size if size >= 0 else "?" for size in tuple(tensor.shape)]
            raise RequestError("build", f"{tensor.name} has the open shape {shape}: export with static shapes")
    return network, parser


def configured(trt: Any, builder: Any, network: Any, options: Mapping[str, int]) -> Any:
    """The builder's configuration for BUILD_OPTIONS."""
    config = builder.create_builder_config()
    config.builder_optimization_level = options["optimization_level"]
    if options["workspace_mib"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_mib"] << 20)
    (config.set_flag if options["tf32"] else config.clear_flag)(trt.BuilderFlag.TF32)
    if not _strongly_typed(trt) and _holds(network, trt.DataType.HALF):
        config.set_flag(trt.BuilderFlag.FP16)
    if not _strongly_typed(trt) and _quantizes(trt, network):
        config.set_flag(trt.BuilderFlag.INT8)
    sources = trt.TacticSource.__members__
    config.set_tactic_sources(sum(1 << int(sources[name]) for name in _TACTIC_SOURCES if name in sources))
    return config


def _creation_flags(trt: Any) -> int:
    kinds = trt.NetworkDefinitionCreationFlag.__members__
    return 1 << int(kinds["STRONGLY_TYPED" if _strongly_typed(trt) else "EXPLICIT_BATCH"])


def _strongly_typed(trt: Any) -> bool:
    return "STRONGLY_TYPED" in trt.NetworkDefinitionCreationFlag.__members__


def _holds(network: Any, dtype: Any) -> bool:
    return any(
        layer.get_output(index).dtype == dtype for layer in _layers(network) for index in range(layer.num_outputs)
    )


def _quantizes(trt: Any, network: Any) -> bool:
    # By the layers' kind: the parser of 8.6 leaves what they put out a float until the network is built.
    return any(layer.type in (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE) for layer in _layers(network))


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))
