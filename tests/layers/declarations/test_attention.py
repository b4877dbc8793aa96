"""Attention, its masks and its positions against their formulas in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from layers.declarations.attention import AttentionConfig
from layers.declarations.score_bias import RelativeConfig, alibi_slopes
from layers.modules.attention import Attention, build_attention
from layers.modules.score_bias import ScoreBias, distances, hidden

B, D = 2, 24
T, S = 7, 5
"""Tokens, and those of an encoder."""


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


def made(config: AttentionConfig, length: int = T) -> tuple[Attention, Tensor]:
    torch.manual_seed(0)
    module = build_attention(config).eval()
    return module, torch.randn(B, length, D)


def rotated(x_BNTH: np.ndarray, config: AttentionConfig) -> np.ndarray:
    """Each pair of channels as a complex number, turned by position x base^(-2i / R) (Su et al. 2021)."""
    r = int(config.attention_head_size * config.rotary_embedding_percentage)
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


def formula(
    module: Attention, config: AttentionConfig, x: Tensor, encoded: Tensor, bias_BNTS: np.ndarray
) -> np.ndarray:
    """softmax(Q Kᵀ / (q_scaling √H) + bias) V, head by head, in float64."""
    n, k, h = config.num_attention_heads, config.num_kv_heads, config.attention_head_size
    parameters = {name: value.detach().double().numpy() for name, value in module.named_parameters()}

    def product(x: Tensor, name: str) -> np.ndarray:
        return x.double().numpy() @ parameters[f"{name}.weight"].T + parameters.get(f"{name}.bias", 0)

    if config.cross_attention:
        q, (key, v) = product(x, "query"), np.split(product(encoded, "key_value"), 2, axis=-1)
    else:
        q, key, v = np.split(product(x, "qkv"), [n * h, (n + k) * h], axis=-1)
    q, key, v = (part.reshape(B, part.shape[1], -1, h).transpose(0, 2, 1, 3) for part in (q, key, v))
    if config.qk_layernorm:
        q, key = (
            (part - part.mean(-1, keepdims=True)) / np.sqrt(part.var(-1, keepdims=True) + 1e-5)
            * parameters[f"{name}_layernorm.weight"]
            + parameters[f"{name}_layernorm.bias"]
            for name, part in (("q", q), ("k", key))
        )  # fmt: skip
    if config.rotation:
        q, key = rotated(q, config), rotated(key, config)
    bias_BNTS = np.broadcast_to(bias_BNTS, (B, n, q.shape[2], key.shape[2]))
    out = np.empty((B, q.shape[2], n, h))
    for head in range(n):
        shared = head // (n // k)
        scores = q[:, head] @ key[:, shared].transpose(0, 2, 1) / (config.q_scaling * np.sqrt(h)) + bias_BNTS[:, head]
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, :, head] = weights / weights.sum(-1, keepdims=True) @ v[:, shared]
    return out.reshape(B, -1, n * h) @ parameters["dense.weight"].T + parameters.get("dense.bias", 0)


def mask_formula(config: AttentionConfig, queries: int, keys: int, mask: np.ndarray | None) -> np.ndarray:
    """0 where key j is seen by query i, -inf where it is not."""
    i, j = np.arange(queries)[:, None], np.arange(keys)[None, :]
    match config.attention_mask_type:
        case "causal":
            seen = j <= i
        case "sliding_window_causal":
            seen = (j <= i) & (j > i - config.max_attention_window_size)
        case "padding":
            seen = mask[:, None, None, :] == 1
        case "sliding_window":
            seen = (mask[:, None, None, :] == 1) & (np.abs(j - i) < config.max_attention_window_size)
        case "custom_mask":
            seen = mask[:, None] == 1
        case _:
            seen = j <= keys
    return np.where(seen, 0.0, -np.inf)


def position_formula(config: AttentionConfig, queries: int, keys: int, table: np.ndarray | None) -> np.ndarray:
    """[N, T, S] from the papers: ALiBi's slopes, or T5's table by bucket."""
    n = config.num_attention_heads
    i, j = np.arange(queries)[:, None], np.arange(keys)[None, :]
    if "alibi" in config.position_embedding_type:
        scale = config.attention_head_size**-0.5 if config.position_embedding_type == "alibi_with_scale" else 1.0
        slopes = 2.0 ** (-8.0 / n * np.arange(1, n + 1)) * scale
        return -slopes[:, None, None] * np.abs(i - j)
    if config.position_embedding_type == "relative":
        both_ways = "causal" not in config.attention_mask_type
        return table[:, t5_buckets(j - i, both_ways, config.num_buckets, config.max_distance)]
    return np.zeros((n, queries, keys))


def t5_buckets(relative: np.ndarray, both_ways: bool, num_buckets: int, max_distance: int) -> np.ndarray:
    """As section 2.1 of Raffel et al. 2020 and their code say: exact up to half, then logarithmic, at most the last."""
    buckets = np.zeros(relative.shape, int)
    if both_ways:
        num_buckets //= 2
        buckets += (relative > 0) * num_buckets
        distance = np.abs(relative)
    else:
        distance = np.maximum(-relative, 0)
    exact = num_buckets // 2
    with np.errstate(divide="ignore"):
        share = np.log(distance / exact) / np.log(max_distance / exact)
    logarithmic = exact + np.floor(np.maximum(share, 0) * (num_buckets - exact) + 1e-9).astype(int)
    return buckets + np.where(distance < exact, distance, np.minimum(logarithmic, num_buckets - 1))


def assert_is_its_formula(config: AttentionConfig, queries: int = T, keys: int = S) -> None:
    """In both of its forms: PyTorch's kernel, and the products that graphs have."""
    keys = keys if config.cross_attention else queries
    module, x = made(config, queries)
    encoded = torch.randn(B, keys, D)
    mask = None
    if config.attention_mask_type in ("padding", "custom_mask"):
        shape = (B, keys) if config.attention_mask_type == "padding" else (B, queries, keys)
        mask = torch.randint(0, 2, shape, dtype=torch.int32)
        mask[..., 0] = 1
    if config.attention_mask_type == "sliding_window":
        # Padding stands at the end; a window of one token would leave it nothing to see.
        mask = torch.ones((B, keys), dtype=torch.int32)
        mask[:, -1] = int(config.max_attention_window_size == 1)
    score_bias = ScoreBias(config.score_bias)
    if score_bias.relative is not None:
        torch.nn.init.normal_(score_bias.relative.table)
    table = None if score_bias.relative is None else score_bias.relative.table.detach().double().numpy()
    bias = mask_formula(config, queries, keys, None if mask is None else mask.numpy())
    bias = bias + position_formula(config, queries, keys, table)
    expected = formula(module, config, x, encoded, bias)
    with torch.no_grad():
        ours = score_bias(x, keys, mask)
        fused = module(x, ours, encoded).numpy()
        q, k, v = module._heads(*module._project(x, encoded), None)
        k, v = module._repeated(k), module._repeated(v)
        if config.score_bias.only_causal:
            ours = hidden(distances(queries, keys) > 0, x.dtype)
        written_out = module.dense(module._written_out(q, k, v, ours).transpose(1, 2).flatten(2)).numpy()
    np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(written_out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_mask_type": "bidirectional"},
        {"attention_mask_type": "padding"},
        {"attention_mask_type": "custom_mask", "num_kv_heads": 2},
        {"attention_mask_type": "sliding_window_causal", "max_attention_window_size": 1},
        {"attention_mask_type": "sliding_window_causal", "max_attention_window_size": 4},
        {"attention_mask_type": "sliding_window", "max_attention_window_size": 1},
        {"attention_mask_type": "sliding_window", "max_attention_window_size": 3, "num_kv_heads": 2},
        {"attention_mask_type": "bidirectional", "cross_attention": True},
        {"attention_mask_type": "padding", "cross_attention": True, "num_kv_heads": 2, "attention_head_size": 8},
        {"attention_mask_type": "custom_mask", "cross_attention": True, "qk_layernorm": True, "bias": False},
        {"attention_mask_type": "padding", "position_embedding_type": "relative"},
        {"attention_mask_type": "custom_mask", "position_embedding_type": "alibi"},
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
def test_attention_is_its_formula(changes):
    assert_is_its_formula(config_of(**changes))


POSITIONS = {
    "relative": {"position_embedding_type": "relative", "num_buckets": 8, "max_distance": 20},
    "alibi": {"position_embedding_type": "alibi"},
    "alibi_with_scale": {"position_embedding_type": "alibi_with_scale"},
    "rope_gpt_neox": {"position_embedding_type": "rope_gpt_neox"},
    "rope_gptj": {"position_embedding_type": "rope_gptj", "rotary_embedding_percentage": 0.67},
}


@pytest.mark.parametrize("length", [1, 2, 7, 45])
@pytest.mark.parametrize("mask_type", ["causal", "bidirectional", "sliding_window_causal"])
@pytest.mark.parametrize("position", POSITIONS)
def test_positions_are_their_papers_formulas_at_every_size(position, mask_type, length):
    """45 tokens are beyond relative attention's max_distance of 20."""
    window = 3 if mask_type == "sliding_window_causal" else None
    changes = {"attention_mask_type": mask_type, "max_attention_window_size": window, "max_position_embeddings": 45}
    assert_is_its_formula(config_of(**POSITIONS[position], **changes), length)


@pytest.mark.parametrize("num_heads", [1, 2, 3, 6, 8, 12])
def test_alibis_slopes_are_the_papers(num_heads):
    """A geometric sequence from 2^(-8/n); between powers of two every second one of the next power is added."""
    slopes = alibi_slopes(num_heads)
    assert len(slopes) == num_heads
    power = 2 ** (num_heads.bit_length() - 1)
    np.testing.assert_allclose(slopes[:power], [2 ** (-8 * i / power) for i in range(1, power + 1)])
    np.testing.assert_allclose(slopes[power:], [2 ** (-4 * i / power) for i in range(1, 2 * (num_heads - power), 2)])
    if num_heads == 8:
        np.testing.assert_allclose(slopes, [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256])


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize(
    ("num_buckets", "max_distance"), [(32, 128), (8, 20), (4, 3), (6, 9), (16, 27), (64, 1000), (128, 65)]
)
def test_every_distance_is_in_t5s_bucket(num_buckets, max_distance, both_ways):
    relative = np.arange(-3 * max_distance, 3 * max_distance + 1)
    config = RelativeConfig(1, num_buckets, max_distance, both_ways)
    ours = np.array([config.bucket(int(distance)) for distance in relative])
    np.testing.assert_array_equal(ours, t5_buckets(relative, both_ways, num_buckets, max_distance))
    assert ours.max() < num_buckets


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
