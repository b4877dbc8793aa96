"""Checkpoints against the `transformers` package, both ways: ours read by it, its own read by us.

Configured small, with random weights: nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from layers.checkpoints.conversion import from_transformers, read_config, to_transformers
from layers.checkpoints.matching import match
from layers.completion import complete
from layers.declarations.model import broken_rules, parameter_count
from layers.modules.model import build
from tests.layers.modules.transformers_weights import TOLERANCE, VOCABULARY, randomized, tokens

B, T, S = 2, 19, 13


@dataclass(frozen=True, slots=True)
class Case:
    """A model of ours, and what it is there."""

    architecture: str
    values: Mapping[str, Any]
    task: str = "causal_lm"
    filled: bool = False


GPT = {
    "num_layers": 2,
    "hidden_size": 24,
    "attention.num_attention_heads": 3,
    "attention.max_position_embeddings": 32,
    "mlp.ffn_hidden_size": 37,
}
LLAMA = {
    **GPT,
    "attention.num_kv_heads": 1,
    "attention.attention_head_size": 6,
    "attention.position_embedding_type": "rope_gpt_neox",
    "attention.bias": False,
    "mlp.kind": "GatedMLP",
    "mlp.bias": False,
    "norm.kind": "RmsNorm",
}
WINDOW = {"attention.attention_mask_type": "sliding_window_causal", "attention.max_attention_window_size": 5}
GEMMA = {
    **LLAMA,
    "norm_position": "sandwich",
    "embedding_scale": 24**0.5,
    "mlp.hidden_act": "gelu_pytorch_tanh",
    **{f"layers.0.{name}": value for name, value in WINDOW.items()},
}
QK_NORM = {"attention.qk_norm": "RmsNorm", "attention.qk_norm_eps": 1e-6}

CASES = {
    "gpt2": Case("GPT-2", GPT | {"mlp.hidden_act": "gelu_new"}),
    "gpt2 without biases": Case(
        "GPT-2", GPT | {"attention.bias": False, "mlp.bias": False, "norm.bias": False}, filled=True
    ),
    "gpt2 untied": Case("GPT-2", GPT | {"tie_embeddings": False, "mlp.hidden_act": "squared-relu"}),
    "neox": Case(
        "GPT-NeoX",
        GPT
        | {
            "residual": "parallel",
            "tie_embeddings": False,
            "attention.position_embedding_type": "rope_gpt_neox",
            "attention.rotary_embedding_percentage": 0.5,
        },
    ),
    "neox of neighbours": Case(
        "GPT-NeoX",
        GPT
        | {
            "attention.position_embedding_type": "rope_gptj",
            "attention.rotary_embedding_percentage": 0.5,
            "attention.bias": False,
        },
    ),
    "llama": Case("Llama", LLAMA | {"tie_embeddings": False, "attention.rotary_embedding_base": 500.0}),
    "llama of llama3": Case(
        "Llama",
        LLAMA
        | {
            "attention.rotary_embedding_scale_type": "llama3",
            "attention.original_max_position_embeddings": 16,
            "attention.bias": True,
            "mlp.bias": True,
        },
    ),
    "llama of yarn": Case(
        "Llama",
        LLAMA
        | {
            "attention.rotary_embedding_scale_type": "yarn",
            "attention.rotary_embedding_scale": 4.0,
            "attention.original_max_position_embeddings": 16,
        },
    ),
    "llama of neighbours": Case(
        "Llama", LLAMA | {"attention.position_embedding_type": "rope_gptj", "mlp.kind": "FusedGatedMLP"}
    ),
    "llama without scales": Case("Llama", LLAMA | {"norm.elementwise_affine": False}, filled=True),
    "mistral": Case("Mistral", LLAMA | WINDOW),
    "mistral of a width": Case("Mistral", LLAMA | {"hidden_size": 25}),
    "qwen2": Case("Qwen2", LLAMA | {"attention.bias": True, "attention.dense_bias": False}),
    "qwen2 that slides": Case(
        "Qwen2",
        LLAMA
        | {"attention.bias": True, "attention.dense_bias": False}
        | {f"layers.1.{name}": value for name, value in WINDOW.items()},
    ),
    "qwen3": Case("Qwen3", LLAMA | QK_NORM),
    "qwen3 of neighbours": Case("Qwen3", LLAMA | QK_NORM | {"attention.position_embedding_type": "rope_gptj"}),
    "olmo2": Case("OLMo 2", LLAMA | QK_NORM | {"norm_position": "branch", "attention.qk_norm_scope": "width"}),
    "phi3": Case("Phi-3", LLAMA | {"attention.attention_head_size": 8, "attention.rotary_embedding_percentage": 0.5}),
    "smollm3": Case("SmolLM3", LLAMA | {"layers.1.attention.position_embedding_type": "none"}),
    "granite": Case(
        "Granite",
        LLAMA | {"embedding_scale": 3.0, "residual_scale": 0.3, "logits_scale": 0.25, "attention.q_scaling": 2},
    ),
    "gemma2": Case("Gemma 2", GEMMA | {"attention.softcap": 3.0, "logits_softcap": 2.0}),
    "gemma2 of nine": Case("Gemma 2", GEMMA | {"attention.q_scaling": 1.5**0.5}),
    "gemma3": Case(
        "Gemma 3",
        GEMMA
        | QK_NORM
        | {"attention.rotary_embedding_base": 3000.0, "layers.0.attention.rotary_embedding_base": 100.0}
        | {"mlp.kind": "FusedGatedMLP", "logits_softcap": 2.0},
    ),
}
SEQ2SEQ = {**GPT, "num_encoder_layers": 3, "share_source_embedding": True}
T5 = {
    **SEQ2SEQ,
    "rescale_before_lm_head": True,
    "attention.position_embedding_type": "relative",
    "attention.num_buckets": 8,
    "attention.max_distance": 10,
    "attention.q_scaling": 8**-0.5,
    "attention.bias": False,
    "mlp.hidden_act": "relu",
    "mlp.bias": False,
    "norm.kind": "RmsNorm",
}
POST = {"norm_position": "post", "has_embedding_layernorm": True}
MODERNBERT = {
    **GPT,
    "attention.position_embedding_type": "rope_gpt_neox",
    "attention.rotary_embedding_base": 3000.0,
    "attention.bias": False,
    "mlp.kind": "GatedMLP",
    "mlp.hidden_act": "gelu",
    "mlp.bias": False,
    "norm.bias": False,
    "has_embedding_layernorm": True,
    "skip_first_norm": True,
    "pooling": "mean_pooler",
    "pooler_act": "gelu",
    "pooler_bias": False,
    "pooler_norm": True,
    "layers.1.attention.attention_mask_type": "sliding_window",
    "layers.1.attention.max_attention_window_size": 4,
    "layers.1.attention.rotary_embedding_base": 50.0,
}
CASES |= {
    "t5": Case("T5", T5, "seq2seq"),
    "t5 gated": Case(
        "T5",
        T5 | {"mlp.kind": "FusedGatedMLP", "mlp.hidden_act": "gelu_new", "rescale_before_lm_head": False},
        "seq2seq",
    ),
    "bert": Case("BERT", GPT | POST | {"pooling": "pooler", "norm.eps": 1e-12}, "classification"),
    "bert without biases": Case(
        "BERT", GPT | POST | {"pooling": "pooler", "attention.bias": False, "mlp.bias": False}, "classification", True
    ),
    "bert without a bias of the classifier": Case(
        "BERT", GPT | POST | {"pooling": "pooler", "pooler_bias": False, "head_bias": False}, "classification", True
    ),
    "modernbert": Case("ModernBERT", MODERNBERT, "classification"),
    "modernbert of neighbours": Case(
        "ModernBERT",
        MODERNBERT
        | {
            "num_layers": 3,
            "hidden_size": 42,
            "attention.num_attention_heads": 7,
            "attention.position_embedding_type": "rope_gptj",
            "attention.bias": True,
            "mlp.kind": "FusedGatedMLP",
            "mlp.bias": True,
            "norm.bias": True,
            "pooling": "pooler",
            "pooler_act": "relu",
            "pooler_bias": True,
        },
        "classification",
    ),
    "modernbert of windows": Case(
        "ModernBERT",
        MODERNBERT
        | {"hidden_size": 20, "attention.num_attention_heads": 2, "head_bias": False}
        | {f"layers.{layer}.attention.attention_mask_type": "sliding_window" for layer in (0, 1)}
        | {f"layers.{layer}.attention.max_attention_window_size": 1 for layer in (0, 1)}
        | {"layers.0.attention.rotary_embedding_base": 50.0},
        "classification",
        True,
    ),
    "bart": Case("BART", SEQ2SEQ | POST, "seq2seq"),
    "bart scaled": Case("BART", SEQ2SEQ | POST | {"embedding_scale": 24**0.5}, "seq2seq"),
}


def _facts(task: str) -> dict[str, Any]:
    facts = {"vocabulary_size": VOCABULARY, "sequence_length": T}
    if task == "classification":
        return facts | {"classes": 5}
    return facts | {"source_vocabulary_size": VOCABULARY, "source_length": S} if task == "seq2seq" else facts


def _ours(case: Case) -> tuple[dict[str, Any], nn.Module]:
    model = complete(case.task, case.values, _facts(case.task))
    assert broken_rules(model) == []
    return model, randomized(build(model))


def _logits(ours: nn.Module, theirs: nn.Module, task: str) -> tuple[Tensor, Tensor]:
    inputs, source = tokens(B, T), tokens(B, S, seed=2)
    mask = (torch.arange(T) < torch.tensor([[T], [8]])).int()
    source_mask = mask[:, :S]
    with torch.no_grad():
        if task == "classification":
            return ours(inputs, mask), theirs(input_ids=inputs.long(), attention_mask=mask).logits
        if task == "seq2seq":
            given = {"input_ids": source.long(), "attention_mask": source_mask, "decoder_input_ids": inputs.long()}
            return ours(source, source_mask, inputs), theirs(**given).logits
        return ours(inputs), theirs(input_ids=inputs.long()).logits


def _assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert ((ours - theirs).norm() / theirs.norm()).item() <= TOLERANCE


def _theirs(folder: Path) -> nn.Module:
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, name).from_pretrained(folder).eval()


@pytest.mark.parametrize("name", CASES)
def test_a_model_goes_out_and_comes_back(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, ours = _ours(case)
    weights = {path: value.numpy() for path, value in ours.state_dict().items()}

    found = match(model)
    assert found.architecture.name == case.architecture
    assert bool(found.filled) == case.filled
    tensors = to_transformers(model, found, weights)
    (tmp_path / "config.json").write_text(json.dumps(found.config))
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    theirs = _theirs(tmp_path)
    _assert_same(*_logits(ours, theirs, case.task))
    if case.task == "causal_lm" and not case.filled:
        assert sum(value.size for value in tensors.values()) == parameter_count(model)

    # What transformers itself writes is read here as the same model.
    theirs.save_pretrained(tmp_path / "again")
    read = read_config(json.loads((tmp_path / "again" / "config.json").read_text()))
    again = build(read.model).eval()
    back = from_transformers(read, load_file(tmp_path / "again" / "model.safetensors"))
    again.load_state_dict({path: torch.from_numpy(value) for path, value in back.items()}, strict=True)
    _assert_same(*_logits(again, theirs, case.task))
