"""Published encoders."""

from __future__ import annotations

from layers.parameter import Scalar
from layers.presets.preset import Preset, of_layers

_BERT_MODEL: dict[str, Scalar] = {
    "kind": "encoder",
    "norm_position": "post",
    "has_embedding_layernorm": True,
    "pooling": "pooler",
    "attention.attention_mask_type": "padding",
    "attention.position_embedding_type": "learned_absolute",
    "attention.max_position_embeddings": 512,
    "attention.bias": True,
    "mlp.kind": "MLP",
    "mlp.hidden_act": "gelu",
    "mlp.bias": True,
    "norm.kind": "LayerNorm",
    "norm.eps": 1e-12,
}
"""All tokens are of one type: the vector that BERT adds for it is part of the positions' table."""


def _bert(size: str, num_layers: int, num_attention_heads: int, hidden_size: int) -> Preset:
    url = f"https://huggingface.co/google/bert_uncased_L-{num_layers}_H-{hidden_size}_A-{num_attention_heads}"
    return Preset(
        name=f"bert-{size}",
        title=f"BERT {size} (with a vocabulary of 30,522 word pieces there)",
        source="Turc et al. 2019, arXiv 1908.08962; Devlin et al. 2018, arXiv 1810.04805",
        url=url,
        values={
            "num_layers": num_layers,
            "hidden_size": hidden_size,
            "attention.num_attention_heads": num_attention_heads,
            "mlp.ffn_hidden_size": 4 * hidden_size,
            **_BERT_MODEL,
        },
    )


BERTS = (
    _bert("tiny", 2, 2, 128),
    _bert("mini", 4, 4, 256),
    _bert("small", 4, 8, 512),
    _bert("medium", 8, 8, 512),
)

MODERNBERT = Preset(
    name="modernbert-base",
    title="ModernBERT base (with its vocabulary of 50,368)",
    source="Warner et al. 2024, arXiv 2412.13663",
    url="https://huggingface.co/answerdotai/ModernBERT-base",
    values={
        "kind": "encoder",
        "num_layers": 22,
        "hidden_size": 768,
        "norm_position": "pre",
        "has_embedding_layernorm": True,
        "skip_first_norm": True,
        "pooling": "mean_pooler",
        "pooler_act": "gelu",
        "pooler_bias": False,
        "pooler_norm": True,
        "attention.num_attention_heads": 12,
        "attention.attention_mask_type": "padding",
        "attention.position_embedding_type": "rope_gpt_neox",
        "attention.max_position_embeddings": 8192,
        "attention.rotary_embedding_base": 160_000.0,
        "attention.bias": False,
        "mlp.kind": "GatedMLP",
        "mlp.ffn_hidden_size": 1152,
        "mlp.hidden_act": "gelu",
        "mlp.bias": False,
        "norm.kind": "LayerNorm",
        "norm.eps": 1e-5,
        "norm.bias": False,
        # Every third layer sees everything, the others 64 tokens on either side.
        **of_layers(
            (layer for layer in range(22) if layer % 3),
            {
                "attention.attention_mask_type": "sliding_window",
                "attention.max_attention_window_size": 65,
                "attention.rotary_embedding_base": 10_000.0,
            },
        ),
    },
)
