"""Feed-forward layers and activations against formulas written independently."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from layers.completion import complete
from layers.declarations.mlp import ACTIVATIONS, GATED_ACTIVATIONS, MlpConfig
from layers.modules import activations
from layers.modules.mlp import build_mlp
from layers.parameter import ParameterError

X = np.linspace(-6, 6, 241)
ERF = np.vectorize(math.erf)


def tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "gelu": lambda x: x * 0.5 * (1 + ERF(x / np.sqrt(2))),
    "gelu_new": tanh_gelu,
    "gelu_fast": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "silu": lambda x: x * sigmoid(x),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "squared-relu": lambda x: np.maximum(x, 0) ** 2,
    "sigmoid": sigmoid,
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "identity": lambda x: x,
}


def test_every_declared_activation_is_built_and_has_a_formula_here():
    assert set(activations.ACTIVATIONS) == set(ACTIVATIONS) == set(FORMULAS) | set(GATED_ACTIVATIONS)


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_are_their_formulas(name):
    got = activations.ACTIVATIONS[name](torch.tensor(X))
    np.testing.assert_allclose(got.numpy(), FORMULAS[name](X), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_stay_finite_in_float16(name):
    extreme = torch.tensor([-200.0, -50.0, -1.0, 0.0, 1.0, 50.0, 200.0, 0.0], dtype=torch.float16)
    assert torch.isfinite(activations.ACTIVATIONS[name](extreme)).all()


@pytest.mark.parametrize(("name", "inner"), [("swiglu", "silu"), ("geglu", "gelu")])
def test_gated_activations_multiply_the_first_half_by_the_activated_second(name, inner):
    x = torch.randn(3, 10, dtype=torch.float64)
    expected = x[:, :5].numpy() * FORMULAS[inner](x[:, 5:].numpy())
    np.testing.assert_allclose(activations.ACTIVATIONS[name](x).numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_layer_is_two_products_around_the_activation(bias):
    module = build_mlp(MlpConfig("MLP", 8, 20, "relu", bias)).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    parameters = {name: value.detach().numpy() for name, value in module.named_parameters()}
    inner = np.maximum(x.numpy() @ parameters["fc.weight"].T + parameters.get("fc.bias", 0), 0)
    expected = inner @ parameters["proj.weight"].T + parameters.get("proj.bias", 0)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_a_gated_layer_applies_the_activation_to_its_gate():
    module = build_mlp(MlpConfig("GatedMLP", 8, 20, "tanh", False)).double()
    x = torch.randn(3, 8, dtype=torch.float64)
    gate, up, proj = (module.get_parameter(f"{name}.weight").detach().numpy() for name in ("gate", "up", "proj"))
    expected = (np.tanh(x.numpy() @ gate.T) * (x.numpy() @ up.T)) @ proj.T
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("activation", [each for each in ACTIVATIONS if each not in GATED_ACTIVATIONS])
@pytest.mark.parametrize("bias", [True, False])
def test_the_fused_layer_equals_the_unfused_one(activation, bias):
    gated = build_mlp(MlpConfig("GatedMLP", 8, 20, activation, bias))
    fused = build_mlp(MlpConfig("FusedGatedMLP", 8, 20, activation, bias))
    state = {name: value for name, value in gated.state_dict().items() if name.startswith("proj")}
    for kind in ("weight", "bias") if bias else ("weight",):
        parts = (gated.get_parameter(f"gate.{kind}"), gated.get_parameter(f"up.{kind}"))
        state[f"fused_fc.{kind}"] = torch.cat(parts)
    fused.load_state_dict(state)
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(fused(x), gated(x))


def test_a_plain_layer_with_swiglu_is_a_gated_layer_with_silu():
    gated = build_mlp(MlpConfig("GatedMLP", 8, 20, "silu", True))
    plain = build_mlp(MlpConfig("MLP", 8, 20, "swiglu", True))
    state = {name: value for name, value in gated.state_dict().items() if name.startswith("proj")}
    for kind in ("weight", "bias"):
        state[f"fc.{kind}"] = torch.cat((gated.get_parameter(f"up.{kind}"), gated.get_parameter(f"gate.{kind}")))
    plain.load_state_dict(state)
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(plain(x), gated(x))


@pytest.mark.parametrize("given", [{"mlp.kind": "MoE"}, {"mlp.num_experts": 8}, {"mlp.top_k": 2}])
def test_a_mixture_of_experts_is_refused_with_the_reason(given: dict[str, object]) -> None:
    values = {"num_layers": 1, "hidden_size": 16, "attention.num_attention_heads": 2, **given}
    with pytest.raises(ParameterError, match="cannot route tokens to experts"):
        complete("causal_lm", values, {"vocabulary_size": 20, "sequence_length": 8})
