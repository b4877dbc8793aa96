"""Activations by their names in `mlp.hidden_act`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]


def gelu_new(x: Tensor) -> Tensor:
    """The tanh approximation as GPT-2 wrote it (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def gelu_fast(x: Tensor) -> Tensor:
    """The same function as `gelu_new`, with the root rounded and factored out."""
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def gelu_pytorch_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)² (So et al. 2021, arXiv 2109.08668)."""
    return torch.relu(x) * torch.relu(x)


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x) (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    return x * torch.sigmoid(1.702 * x)


def identity(x: Tensor) -> Tensor:
    return x


def softplus(x: Tensor) -> Tensor:
    """log(1 + eˣ); of bfloat16 in float32: ONNX's operator takes bfloat16 from opset 22 on alone."""
    wide = x.float() if x.dtype == torch.bfloat16 else x
    return functional.softplus(wide).to(x.dtype)


def swiglu(x: Tensor) -> Tensor:
    """x₁ silu(x₂) of the two halves of the last dimension, as TensorRT-LLM orders them."""
    value, gate = x.chunk(2, dim=-1)
    return value * functional.silu(gate)


def geglu(x: Tensor) -> Tensor:
    """x₁ gelu(x₂) of the two halves of the last dimension, as TensorRT-LLM orders them."""
    value, gate = x.chunk(2, dim=-1)
    return value * functional.gelu(gate)


ACTIVATIONS: dict[str, Activation] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "gelu_new": gelu_new,
    "gelu_fast": gelu_fast,
    "gelu_pytorch_tanh": gelu_pytorch_tanh,
    "silu": functional.silu,
    "softplus": softplus,
    "squared-relu": squared_relu,
    "sigmoid": torch.sigmoid,
    "quick_gelu": quick_gelu,
    "identity": identity,
    "swiglu": swiglu,
    "geglu": geglu,
}
