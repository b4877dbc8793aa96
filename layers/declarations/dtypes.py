"""Number formats: a model's, and those of single kinds of layers in it.

What lies between layers is in the model's `dtype`: a layer in another format is given its input in its own, and what it
gives is brought back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from layers.declarations.rules import Violation
from layers.parameter import Parameter, Scalar

BYTES = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}

OF_NORMS = ("float32", "float16", "bfloat16")

MIXED = "mixed precision"
"""What a target lacks (in its `lacks`) that runs a whole engine in one format."""

PRODUCTS = ("attention", "mlp", "embedding", "linear")
"""Sections of layers whose format is the model's unless another is given."""

NORM = Parameter(
    type="string",
    choices=OF_NORMS,
    default="float32",
    meaning="number format in which norms compute (a mean of squares beyond 65,504 overflows float16)",
    source="TensorRT-LLM layers; float32: Micikevicius et al. 2017, arXiv 1710.03740",
    search={"values": ["float32", "float16"]},
)


def layer_dtype(what: str) -> Parameter:
    """A kind of layer's own format; `what` of it has this format."""
    return Parameter(
        type="string",
        choices=tuple(BYTES),
        default=None,
        meaning=f"number format of {what}; what goes in and comes out is in the model's; left out: dtype",
        source="TensorRT-LLM layers; Micikevicius et al. 2017, arXiv 1710.03740",
        search={"values": ["float32", "float16"]},
    )


def follow(model: dict[str, Scalar], section: str) -> None:
    """Fill in a kind of layer's own format."""
    model.setdefault(f"{section}.dtype", model["dtype"])


def own_dtype(model: Mapping[str, Scalar], section: str) -> str | None:
    """The format of a kind of layer; None if only the model's is given."""
    value = model.get(f"{section}.dtype")
    return None if value is None else str(value)


def by_parameter(model: Mapping[str, Scalar]) -> dict[str, str]:
    """The formats of a completed model by the parameters that say them, those of single layers apart.

    A norm's float32 is left out: every target computes norms so, whatever the model's format is.
    """
    named = {name: str(value) for name, value in model.items() if name == "dtype" or name.endswith(".dtype")}
    return {name: each for name, each in named.items() if not (name.endswith("norm.dtype") and each == "float32")}


def broken_rules(model: Mapping[str, Scalar], section: str) -> Iterator[Violation]:
    """tf32 is a switch of a whole engine: its float32 products are all rounded, or none is."""
    path = f"{section}.dtype"
    own, whole = model.get(path, model["dtype"]), model["dtype"]
    if own != whole and (own == "tf32" or {own, whole} == {"float32", "tf32"}):
        message = f"{path} is {own} and dtype {whole}: the float32 products of an engine are all in tf32, or none is"
        yield Violation("tf32 of all products", message, ("dtype", path))
