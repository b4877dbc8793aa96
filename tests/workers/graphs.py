"""Small ONNX graphs with known answers, for tests of engines.

B batch, T tokens, D width, F feed-forward, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
"""The lowest that any runtime of this project reads as its highest."""


@dataclass(frozen=True)
class LanguageModel:
    """tokens int32 [B, T] -> logits float32 [B, T, V]: embedding, then residual blocks of MatMul, Erf, MatMul."""

    embedding: np.ndarray
    blocks: tuple[tuple[np.ndarray, np.ndarray], ...]
    output: np.ndarray
    batch: int
    tokens: int

    @classmethod
    def make(cls, *, batch: int = 2, tokens: int = 8, width: int = 16, vocabulary: int = 11, blocks: int = 2) -> Any:
        random = np.random.default_rng(0)

        def weights(rows: int, columns: int) -> np.ndarray:
            return (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

        pairs = tuple((weights(width, 4 * width), weights(4 * width, width)) for _ in range(blocks))
        return cls(weights(vocabulary, width) * 4, pairs, weights(width, vocabulary), batch, tokens)

    @property
    def vocabulary(self) -> int:
        return len(self.embedding)

    @property
    def weights_bytes(self) -> int:
        return sum(array.nbytes for array in self._weights().values())

    @property
    def io_bytes(self) -> int:
        return 4 * self.batch * self.tokens * (1 + self.vocabulary)

    def inputs(self, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        return random.integers(0, self.vocabulary, (self.batch, self.tokens), dtype=np.int32)

    def logits(self, tokens_BT: np.ndarray) -> np.ndarray:
        """In float64."""
        hidden_BTD = self.embedding[tokens_BT].astype(np.float64)
        for up_DF, down_FD in self.blocks:
            hidden_BTD = hidden_BTD + _erf(hidden_BTD @ up_DF) @ down_FD
        return hidden_BTD @ self.output

    def model(self, *, batch: int | str | None = None) -> onnx.ModelProto:
        nodes = [helper.make_node("Gather", ["embedding", "tokens"], ["hidden_0"])]
        for index in range(len(self.blocks)):
            nodes += [
                helper.make_node(
                    "MatMul", [f"hidden_{index}", f"up_{index}"], [f"wide_{index}"], f"up_product_{index}"
                ),
                helper.make_node("Erf", [f"wide_{index}"], [f"active_{index}"]),
                helper.make_node(
                    "MatMul", [f"active_{index}", f"down_{index}"], [f"narrow_{index}"], f"down_product_{index}"
                ),
                helper.make_node("Add", [f"hidden_{index}", f"narrow_{index}"], [f"hidden_{index + 1}"]),
            ]
        nodes.append(helper.make_node("MatMul", [f"hidden_{len(self.blocks)}", "output"], ["logits"], "head"))
        shape = [batch or self.batch, self.tokens]
        graph = helper.make_graph(
            nodes,
            "language_model",
            [helper.make_tensor_value_info("tokens", TensorProto.INT32, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*shape, self.vocabulary])],
            [numpy_helper.from_array(array, name) for name, array in self._weights().items()],
        )
        return _model(graph)

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), path)
        return path

    def _weights(self) -> dict[str, np.ndarray]:
        named = {"embedding": self.embedding, "output": self.output}
        for index, (up_DF, down_FD) in enumerate(self.blocks):
            named |= {f"up_{index}": up_DF, f"down_{index}": down_FD}
        return named


def save_loss(path: Path, logits_shape: tuple[int, ...]) -> Path:
    """logits float32 [..., V], targets int32 [...], weights float32 [...] -> loss_sum, weight_sum, correct."""
    labels = list(logits_shape[:-1])
    last = numpy_helper.from_array(np.array([-1], np.int64), "last")
    nodes = [
        helper.make_node("LogSoftmax", ["logits"], ["log_probabilities"], axis=-1),
        helper.make_node("Cast", ["targets"], ["targets_64"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["targets_64", "last"], ["index"]),
        helper.make_node("GatherElements", ["log_probabilities", "index"], ["picked"], axis=-1),
        helper.make_node("Squeeze", ["picked", "last"], ["log_probability"]),
        helper.make_node("Neg", ["log_probability"], ["loss"]),
        helper.make_node("Mul", ["loss", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted"], ["loss_sum"], keepdims=0),
        helper.make_node("ReduceSum", ["weights"], ["weight_sum"], keepdims=0),
        helper.make_node("ArgMax", ["logits"], ["best"], axis=-1, keepdims=0),
        helper.make_node("Equal", ["best", "targets_64"], ["hit"]),
        helper.make_node("Cast", ["hit"], ["hits"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["hits", "weights"], ["weighted_hits"]),
        helper.make_node("ReduceSum", ["weighted_hits"], ["correct"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "loss",
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, list(logits_shape)),
            helper.make_tensor_value_info("targets", TensorProto.INT32, labels),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, labels),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in ("loss_sum", "weight_sum", "correct")],
        [last],
    )
    onnx.save(_model(graph), path)
    return path


def cross_entropy(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """loss_sum, weight_sum, correct in float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    picked = np.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
    hits = logits.argmax(axis=-1) == targets
    return float(-(picked * weights).sum()), float(weights.sum()), float((hits * weights).sum())


def unknown_operator(path: Path) -> Path:
    """A model whose operator no runtime knows."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Frobnicate", ["x"], ["y"])], "unknown", value[:1], value[1:])
    path.write_bytes(_model(graph).SerializeToString())
    return path


def beyond_memory(path: Path) -> Path:
    """A valid model with small inputs and outputs whose one intermediate tensor is larger than any address space."""
    shape = numpy_helper.from_array(np.array([1 << 26, 1 << 26], np.int64), "shape")
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["y"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])]
    path.write_bytes(_model(helper.make_graph(nodes, "beyond", inputs, outputs, [shape])).SerializeToString())
    return path


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def _erf(values: np.ndarray) -> np.ndarray:
    """The error function by its alternating series and, far out, by its limit; float64, error below 1e-9."""
    near = np.clip(values, -3.5, 3.5)
    term, total = near.copy(), near.copy()
    for index in range(1, 80):
        term = term * -(near**2) / index
        total = total + term / (2 * index + 1)
    return np.where(np.abs(values) <= 3.5, 2 / np.sqrt(np.pi) * total, np.sign(values) * (1 - 7e-7))
