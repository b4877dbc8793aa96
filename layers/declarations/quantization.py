"""Quantization of a model's products: what may be asked for, and what does not go together.

The graph itself says what is rounded to 8 bits (explicit quantization, by QuantizeLinear and DequantizeLinear), so that
every runtime computes the same function: `layers.export.quantization` makes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from layers.declarations import dtypes
from layers.declarations.rules import Violation
from layers.parameter import Parameter, Scalar

NONE = "none"

PARAMETER = Parameter(
    type="string",
    choices=(NONE, "int8", "fp8"),
    default=NONE,
    meaning=(
        "8-bit products with weights, in the engine alone: weights and what is multiplied with them are rounded to "
        "int8 (weights by column) or fp8 (E4M3), in ranges found on training data after training; the product that "
        "makes logits and all else stay in dtype. precision_gap is what it costs"
    ),
    source="Wu et al. 2020, arXiv 2004.09602 (int8); Micikevicius et al. 2022, arXiv 2209.05433 (fp8)",
    search={"values": [NONE, "int8"]},
)

IN_HALF = "quantization of float16"
"""What a target lacks (in its `lacks`) that quantizes float32 models alone."""


def of_model(model: Mapping[str, Scalar]) -> str:
    """The quantization of a completed model; a kind without products has none."""
    return str(model.get("quantization", NONE))


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    """Ranges are found by ONNX Runtime on the CPU, which has no products in bfloat16."""
    if of_model(model) == NONE:
        return
    for path, dtype in dtypes.by_parameter(model).items():
        if dtype == "bfloat16":
            message = f"quantization is {model['quantization']} and {path} bfloat16: it goes with float32 and float16"
            yield Violation("quantization of bfloat16", message, ("quantization", path))
            return


def lacking(model: Mapping[str, Scalar], able: Collection[str], lacks: Mapping[str, str]) -> str | None:
    """Which quantization a target does not run that is `able` to run these and says why it `lacks` others, in words
    without its name; None if it lacks nothing."""
    wanted = of_model(model)
    if wanted == NONE:
        return None
    if wanted not in able:
        why = lacks.get(f"quantization {wanted}", "it says nothing of it")
        return f"does not run quantization {wanted}: {why}"
    halves = [path for path, dtype in dtypes.by_parameter(model).items() if dtype == "float16"]
    if halves and IN_HALF in lacks:
        return f"does not run quantization {wanted} with {halves[0]} float16: {lacks[IN_HALF]}"
    return None
