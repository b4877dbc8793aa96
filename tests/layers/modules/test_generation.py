"""Prefill and decode are the decoder that reads a text at once, with every kind of attention and of block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from layers.completion import complete
from layers.dataset_facts import ModelFacts
from layers.declarations.inference.generation import GenerationConfig
from layers.declarations.model import broken_rules
from layers.export.onnx_export import cast_copy
from layers.modules.generation import Decode, GenerativeModel, prefill_of
from layers.modules.model import build
from workers.engine.base import TensorSpec
from workers.engine.generation.caches import Caches

PROMPT, TOKENS, SOURCE = 6, 24, 9
INFERENCE = {
    "mode": "generate",
    "batch_size": 2,
    "prompt_tokens": PROMPT,
    "new_tokens": TOKENS - PROMPT + 1,
    "source_length": SOURCE,
}
BASE = {"hidden_size": 16, "num_layers": 2, "attention.num_attention_heads": 4}
SLIDING = {"attention.attention_mask_type": "sliding_window_causal"}

VARIANTS: dict[str, dict[str, Any]] = {
    "learned": {},
    "grouped": {"attention.num_kv_heads": 2},
    "one key head": {"attention.num_kv_heads": 1, "attention.attention_head_size": 6},
    "rope": {"attention.position_embedding_type": "rope_gpt_neox"},
    "rope of neighbours": {"attention.position_embedding_type": "rope_gptj"},
    "rope in part": {
        "attention.position_embedding_type": "rope_gpt_neox",
        "attention.attention_head_size": 8,
        "attention.rotary_embedding_percentage": 0.5,
    },
    **{
        f"rope {scale}": {
            "attention.position_embedding_type": "rope_gpt_neox",
            "attention.rotary_embedding_scale_type": scale,
            "attention.rotary_embedding_scale": 4.0,
        }
        for scale in ("linear", "llama3", "yarn")
    },
    "alibi": {"attention.position_embedding_type": "alibi"},
    "alibi, grouped": {"attention.position_embedding_type": "alibi_with_scale", "attention.num_kv_heads": 2},
    "relative": {
        "attention.position_embedding_type": "relative",
        "attention.num_buckets": 8,
        "attention.max_distance": 12,
    },
    "relative, sliding": {**SLIDING, "attention.position_embedding_type": "relative", "attention.num_kv_heads": 2},
    "sinusoidal": {"attention.position_embedding_type": "sinusoidal", "head_bias": True},
    "shared weights": {"layers_sharing_weights": 2, "attention.position_embedding_type": "relative"},
    "a relative table a layer": {
        "attention.position_embedding_type": "relative",
        "attention.relative_table_per_layer": True,
    },
    "no first norm": {"has_embedding_layernorm": True, "skip_first_norm": True},
    "no positions": {"attention.position_embedding_type": "none"},
    **{f"window of {size}": {**SLIDING, "attention.max_attention_window_size": size} for size in (1, 2, 7, 24)},
    "windows that differ": {
        **SLIDING,
        "attention.position_embedding_type": "rope_gpt_neox",
        "layers.0.attention.max_attention_window_size": 3,
        "layers.1.attention.attention_mask_type": "causal",
    },
    "normalized heads": {"attention.qk_norm": "RmsNorm"},
    "normalized width": {"attention.qk_norm": "LayerNorm", "attention.qk_norm_scope": "width"},
    "capped": {"attention.softcap": 2.0, "logits_softcap": 3.0},
    "scaled": {"attention.q_scaling": 0.5, "embedding_scale": 3.0, "residual_scale": 0.5, "logits_scale": 2.0},
    "side by side": {"residual": "parallel"},
    **{f"norms {place}": {"norm_position": place} for place in ("post", "sandwich", "branch")},
    "narrow table": {"embedding.embedding_dim": 8, "has_embedding_layernorm": True},
    "attention in float16": {"attention.dtype": "float16"},
    "prompt": {"embedding.kind": "PromptTuningEmbedding", "embedding.prompt_length": 4},
    "prompt, relative window": {
        **SLIDING,
        "embedding.kind": "PromptTuningEmbedding",
        "embedding.prompt_length": 4,
        "attention.position_embedding_type": "relative",
        "attention.max_attention_window_size": 7,
    },
}


FROM_SOURCE: dict[str, dict[str, Any]] = {
    "learned": {},
    "grouped": {"attention.num_kv_heads": 2},
    "relative": {"attention.position_embedding_type": "relative", "attention.num_kv_heads": 1},
    "shared weights": {"layers_sharing_weights": 2},
    "relative tables of their own": {
        "attention.position_embedding_type": "relative",
        "attention.relative_table_per_layer": True,
    },
    "rope, windows": {
        **SLIDING,
        "attention.position_embedding_type": "rope_gpt_neox",
        "attention.max_attention_window_size": 5,
    },
    "normalized heads, capped": {"attention.qk_norm": "RmsNorm", "attention.softcap": 2.0},
    "normalized width": {"attention.qk_norm": "LayerNorm", "attention.qk_norm_scope": "width"},
    "norms sandwich": {"norm_position": "sandwich"},
    "shared table, prompt": {
        "share_source_embedding": True,
        "embedding.kind": "PromptTuningEmbedding",
        "embedding.prompt_length": 3,
    },
    "prompt": {"embedding.kind": "PromptTuningEmbedding", "embedding.prompt_length": 3},
}


def _made(task: str, values: dict[str, Any]) -> tuple[GenerativeModel, GenerationConfig]:
    facts: ModelFacts = {"vocabulary_size": 29, "sequence_length": TOKENS + 1}
    if task == "seq2seq":
        facts |= {"source_vocabulary_size": 29, "source_length": SOURCE}
    model = complete(task, {**BASE, **values}, facts)
    assert not broken_rules(model)
    torch.manual_seed(0)
    module = cast_copy(build(model, initialization="fan_in"), "float32")
    assert isinstance(module, GenerativeModel)
    return module, GenerationConfig.of(model, INFERENCE)


def _specs(config: GenerationConfig, windows: tuple[int | None, ...]) -> list[TensorSpec]:
    """The inputs of a step, as its graph has them, with the largest caches."""
    specs = [TensorSpec("tokens", np.dtype(np.int32), (2, 1)), TensorSpec("position", np.dtype(np.int32), (1,))]
    longest = config.capacity
    room = {cache.window: cache.capacity(longest) for cache in config.caches}
    specs += [
        TensorSpec(f"positions_{index}", np.dtype(np.int32), (room[window],)) for index, window in enumerate(windows)
    ]
    for layer, cache in enumerate(config.caches):
        shape = (config.batch_size, cache.num_heads, cache.capacity(longest), cache.head_size)
        dtype = np.dtype(np.float16 if cache.dtype == "float16" else np.float32)
        specs += [TensorSpec(f"past_{name}_{layer}", dtype, shape) for name in ("key", "value")]
    if config.source is not None:
        specs.append(TensorSpec("source_mask", np.dtype(np.int32), (2, SOURCE)))
        for layer, cache in enumerate(config.source.caches):
            shape = (config.batch_size, cache.num_heads, config.source.keys, cache.head_size)
            specs += [TensorSpec(f"source_{name}_{layer}", np.dtype(np.float32), shape) for name in ("key", "value")]
    return specs


def _rows(outputs: tuple[Tensor, ...], layers: int) -> dict[str, np.ndarray]:
    """By name: of each layer those of the tokens, then of an encoder's output where it is among them."""
    names = [f"{of}{name}_{layer}" for of in ("", "source_") for layer in range(layers) for name in ("key", "value")]
    return {name: rows.numpy() for name, rows in zip(names, outputs[1:], strict=False)}


@pytest.mark.parametrize(
    ("task", "variant"),
    [("causal_lm", variant) for variant in VARIANTS] + [("seq2seq", variant) for variant in FROM_SOURCE],
)
@torch.inference_mode()
def test_steps_are_the_model_that_reads_all_at_once(task: str, variant: str) -> None:
    model, config = _made(task, (VARIANTS if task == "causal_lm" else FROM_SOURCE)[variant])
    tokens = torch.randint(0, 29, (2, TOKENS), dtype=torch.int32)
    source: tuple[Tensor, ...] = ()
    if task == "seq2seq":
        mask = (torch.arange(SOURCE) < torch.tensor([[SOURCE], [SOURCE - 3]])).int()
        source = torch.randint(0, 29, (2, SOURCE), dtype=torch.int32), mask
    step = Decode(model)
    caches = Caches(_specs(config, step.windows))
    outputs = prefill_of(model)(*source, tokens[:, :PROMPT])
    logits = [outputs[0]]
    caches.fill(_rows(outputs, len(config.caches)), np.arange(config.prompt_length + PROMPT))
    caches.keep({**_rows(outputs, len(config.caches)), **({"source_mask": source[1].numpy()} if source else {})})
    for read in range(PROMPT, TOKENS):
        position = config.prompt_length + read
        inputs = caches.step(tokens[:, read].numpy(), position)
        outputs = step(*map(torch.from_numpy, inputs.values()))
        logits.append(outputs[0])
        caches.fill(_rows(outputs, len(config.caches)), np.array([position]))
    tolerance = 5e-3 if "float16" in variant else 1e-5
    torch.testing.assert_close(
        torch.stack(logits, dim=1), model(*source, tokens)[:, PROMPT - 1 :], atol=tolerance, rtol=tolerance
    )
