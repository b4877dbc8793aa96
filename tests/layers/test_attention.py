"""Attention against its formulas in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from layers.attention import AttentionConfig
from layers.modules.attention import Attention, build_attention
from layers.modules.score_bias import distances, hidden

B, T, D = 2, 7, 24


def config_of(**changes) -> AttentionConfig:
    values = {
        "hidden_size": D,
        "num_attention_heads": 4,
        "num_kv_heads": 4,
        "attention_head_size": 6,
        "max_position_embeddings": 16,
        **changes,
    }
    return AttentionConfig(**values)


def made(config: AttentionConfig) -> tuple[Attention, Tensor]:
    torch.manual_seed(0)
    module = build_attention(config).eval()
    return module, torch.randn(B, T, D)


def rotated(x_BNTH: np.ndarray, config: AttentionConfig) -> np.ndarray:
    """Each pair of channels as a complex number, turned by position x base^(-2i / R)."""
    r = config.rotary_dim
    frequencies = config.rotary_embedding_base ** (-2.0 * np.arange(r // 2) / r)
    turns = np.exp(1j * np.outer(np.arange(x_BNTH.shape[2]), frequencies))
    out = x_BNTH.astype(np.float64).copy()
    if config.position_embedding_type == "rope_gptj":
        first, second = slice(0, r, 2), slice(1, r, 2)
    else:
        first, second = slice(0, r // 2), slice(r // 2, r)
    turned = (x_BNTH[..., first] + 1j * x_BNTH[..., second]) * turns
    out[..., first], out[..., second] = turned.real, turned.imag
    return out


def formula(module: Attention, x: Tensor, config: AttentionConfig) -> np.ndarray:
    """softmax(Q Kᵀ / (q_scaling √H) + mask) V, head by head, in float64."""
    n, k, h = config.num_attention_heads, config.num_kv_heads, config.attention_head_size
    parameters = {name: value.detach().double().numpy() for name, value in module.named_parameters()}
    x_BTD = x.double().numpy()
    qkv = x_BTD @ parameters["qkv.weight"].T + parameters.get("qkv.bias", 0)
    q, key, v = np.split(qkv, [n * h, (n + k) * h], axis=-1)
    q, key, v = (part.reshape(B, T, -1, h).transpose(0, 2, 1, 3) for part in (q, key, v))
    if config.qk_layernorm:
        q, key = (
            (part - part.mean(-1, keepdims=True)) / np.sqrt(part.var(-1, keepdims=True) + 1e-5)
            * parameters[f"{name}_layernorm.weight"]
            + parameters[f"{name}_layernorm.bias"]
            for name, part in (("q", q), ("k", key))
        )  # fmt: skip
    if config.rotary_dim:
        q, key = rotated(q, config), rotated(key, config)
    out = np.empty((B, T, n, h))
    for head in range(n):
        shared = head // (n // k)
        scores = q[:, head] @ key[:, shared].transpose(0, 2, 1) / (config.q_scaling * np.sqrt(h))
        if config.attention_mask_type == "causal":
            scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, :, head] = weights / weights.sum(-1, keepdims=True) @ v[:, shared]
    return out.reshape(B, T, n * h) @ parameters["dense.weight"].T + parameters.get("dense.bias", 0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_mask_type": "bidirectional"},
        {"num_kv_heads": 2},
        {"num_kv_heads": 1},
        {"attention_head_size": 10, "bias": False},
        {"q_scaling": 0.5},
        {"qk_layernorm": True},
        {"position_embedding_type": "rope_gpt_neox"},
        {"position_embedding_type": "rope_gptj"},
        {"position_embedding_type": "rope_gpt_neox", "attention_head_size": 8, "rotary_embedding_percentage": 0.5},
        {"position_embedding_type": "rope_gptj", "attention_head_size": 8, "rotary_embedding_percentage": 0.25},
        {"position_embedding_type": "rope_gpt_neox", "rotary_embedding_base": 50.0, "num_kv_heads": 2},
        {"position_embedding_type": "rope_gpt_neox", "qk_layernorm": True, "attention_mask_type": "bidirectional"},
    ],
)
def test_attention_is_its_formula_in_both_forms(changes):
    config = config_of(**changes)
    module, x = made(config)
    expected = formula(module, x, config)
    with torch.no_grad():
        fused = module(x).numpy()
        q, k, v = module._heads(*module._project(x, None))
        causal = hidden(distances(T, T) > 0, x.dtype) if config.attention_mask_type == "causal" else None
        written_out = module.dense(module._written_out(q, k, v, causal).transpose(1, 2).flatten(2)).numpy()
    np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(written_out, expected, rtol=1e-4, atol=1e-5)


def test_grouped_queries_equal_heads_whose_keys_and_values_are_repeated():
    grouped, x = made(config_of(num_kv_heads=2))
    full, _ = made(config_of())
    state = grouped.state_dict()
    for name in ("qkv.weight", "qkv.bias"):
        q, k, v = state[name].split((24, 12, 12))
        k, v = (part.unflatten(0, (2, 6)).repeat_interleave(2, dim=0).flatten(0, 1) for part in (k, v))
        state[name] = torch.cat((q, k, v))
    full.load_state_dict(state)
    torch.testing.assert_close(grouped(x), full(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["rope_gpt_neox", "rope_gptj"])
def test_rotated_scores_depend_on_the_distance_alone(kind):
    module, _ = made(config_of(position_embedding_type=kind))
    q, k = torch.randn(6), torch.randn(6)
    rows = module.rotary(torch.stack((q, k))[None, :, None, :].expand(1, 2, 16, 6))[0]
    near = rows[0, 3] @ rows[1, 1]
    far = rows[0, 14] @ rows[1, 12]
    torch.testing.assert_close(near, far, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_mask_is_finite_and_hides_whatever_the_scores_are(dtype):
    mask = hidden(distances(5, 5) > 0, dtype)
    assert mask.dtype == dtype
    assert torch.isfinite(mask).all()
    for score in (torch.finfo(dtype).min / 2, -1000.0, 0.0, 1000.0):
        weights = torch.softmax(torch.full((5, 5), score, dtype=dtype) + mask, dim=-1)
        assert torch.isfinite(weights).all()
    weights = torch.softmax(torch.full((5, 5), 1000.0, dtype=dtype) + mask, dim=-1).float()
    torch.testing.assert_close(weights, torch.tril(torch.ones(5, 5)) / torch.arange(1, 6)[:, None], rtol=0, atol=1e-2)
    assert not weights.triu(1).any()


def test_wide_heads_do_not_overflow_float16():
    """Unscaled, the scores here are 256 x 20 x 20 = 102,400: beyond the largest float16."""
    module = build_attention(config_of(num_attention_heads=1, num_kv_heads=1, attention_head_size=256)).half().eval()
    heads = torch.full((1, 1, 3, 256), 20.0, dtype=torch.float16)
    assert torch.isfinite(module._written_out(heads, heads, heads, None)).all()
