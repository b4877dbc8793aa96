"""BERT and BART: normalized after each layer is added, with learned positions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from layers.checkpoints.architecture import BIASES, Architecture, Config, Model
from layers.checkpoints.blocks import Names, attention, layer_norm, product
from layers.checkpoints.config_json import CheckpointError, ConfigJson
from layers.checkpoints.tensors import Constant, Link, Part, same
from layers.checkpoints.values import NO_TOKENS, activation, classes_of, head_size, our_activation
from layers.declarations.attention import AttentionConfig
from layers.declarations.mlp import MlpConfig
from layers.declarations.per_layer import views
from layers.parameter import Scalar

_POST: Mapping[str, Sequence[Scalar]] = {
    "norm_position": ("post",),
    "norm.kind": ("LayerNorm",),
    "mlp.kind": ("MLP",),
    "attention.position_embedding_type": ("learned_absolute",),
    "has_embedding_layernorm": (True,),
    "embedding.kind": ("Embedding",),
}


def our_post(config: ConfigJson, *, width: int, heads: int, act: str) -> dict[str, Scalar]:
    """What both have."""
    return {
        "hidden_size": width,
        "norm_position": "post",
        "has_embedding_layernorm": True,
        "embedding.num_embeddings": config.integer("vocab_size"),
        "attention.num_attention_heads": heads,
        "attention.attention_head_size": head_size(width, heads),
        "attention.position_embedding_type": "learned_absolute",
        "attention.bias": True,
        "mlp.kind": "MLP",
        "mlp.hidden_act": our_activation(config, act, "gelu"),
        "mlp.bias": True,
        "norm.kind": "LayerNorm",
    }


# --- BERT -----------------------------------------------------------------------------------------------------------

_BERT_NAMES: Names = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}


def _bert(model: Model) -> Config:
    return {
        "vocab_size": int(model["embedding.num_embeddings"]),
        "hidden_size": int(model["hidden_size"]),
        "num_hidden_layers": len(views(model)),
        "num_attention_heads": int(model["attention.num_attention_heads"]),
        "intermediate_size": int(model["mlp.ffn_hidden_size"]),
        "hidden_act": activation(model),
        "max_position_embeddings": int(model["attention.max_position_embeddings"]),
        "type_vocab_size": 1,
        "layer_norm_eps": float(model["norm.eps"]),
        "num_labels": int(model["classes"]),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **NO_TOKENS,
    }


def _our_bert(config: ConfigJson) -> dict[str, Scalar]:
    config.refuse("is_decoder", False, "Layersweep reads BERT as an encoder")
    config.refuse("position_embedding_type", "absolute", "Layersweep builds BERT with learned positions")
    width, heads = config.integer("hidden_size", 768), config.integer("num_attention_heads", 12)
    return {
        **our_post(config, width=width, heads=heads, act="hidden_act"),
        "kind": "encoder",
        "num_layers": config.integer("num_hidden_layers", 12),
        "pooling": "pooler",
        "classes": classes_of(config),
        "attention.attention_mask_type": "padding",
        "attention.max_position_embeddings": config.integer("max_position_embeddings", 512),
        "mlp.ffn_hidden_size": config.integer("intermediate_size", 3072),
        "norm.eps": config.number("layer_norm_eps", 1e-12),
    }


def _bert_parts(model: Model) -> list[Part]:
    layers = views(model)
    width, rows = int(model["hidden_size"]), int(model["embedding.num_embeddings"])
    table, positions = "bert.embeddings", int(model["attention.max_position_embeddings"])
    parts: list[Part] = [
        same("embedding.table.weight", f"{table}.word_embeddings.weight", rows),
        same("stack.position_embedding.weight", f"{table}.position_embeddings.weight", positions),
        # All tokens are of the first type: its vector is part of every position's.
        Constant(f"{table}.token_type_embeddings.weight", (1, width), 0.0, added_to="stack.position_embedding.weight"),
        *layer_norm(layers[0], "stack.embedding_layernorm", f"{table}.LayerNorm"),
        *product("pooler", "bert.pooler.dense", width, bias=bool(model.get("pooler_bias", True))),
        *product("classifier", "classifier", int(model["classes"]), bias=bool(model.get("head_bias", True))),
    ]
    for number, layer in enumerate(layers):
        ours, theirs = f"stack.layers.{number}", f"bert.encoder.layer.{number}"
        mlp = MlpConfig.of(layer)
        own = AttentionConfig.of(layer).to_itself("padding")
        parts += attention(own, f"{ours}.attention", f"{theirs}.attention", _BERT_NAMES, has_biases=True)
        parts += layer_norm(layer, f"{ours}.input_layernorm", f"{theirs}.attention.output.LayerNorm")
        parts += product(f"{ours}.mlp.fc", f"{theirs}.intermediate.dense", mlp.ffn_hidden_size, bias=mlp.bias)
        parts += product(f"{ours}.mlp.proj", f"{theirs}.output.dense", width, bias=mlp.bias)
        parts += layer_norm(layer, f"{ours}.post_layernorm", f"{theirs}.output.LayerNorm")
    return parts


# --- BART -----------------------------------------------------------------------------------------------------------

_BART_NAMES: Names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
_SKIPPED_POSITIONS = 2
"""Rows of BART's tables of positions that no token reads."""


def _bart(model: Model) -> Config:
    width, heads = int(model["hidden_size"]), int(model["attention.num_attention_heads"])
    scale = float(model.get("embedding_scale", 1.0))
    return {
        "vocab_size": int(model["embedding.num_embeddings"]),
        "d_model": width,
        "max_position_embeddings": int(model["attention.max_position_embeddings"]),
        "encoder_layers": int(model["num_encoder_layers"]),
        "decoder_layers": int(model["num_layers"]),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": int(model["mlp.ffn_hidden_size"]),
        "decoder_ffn_dim": int(model["mlp.ffn_hidden_size"]),
        "activation_function": activation(model),
        "scale_embedding": scale != 1.0,
        "tie_word_embeddings": True,
        "dropout": 0.0,
        **NO_TOKENS,
        "decoder_start_token_id": None,
        "forced_eos_token_id": None,
    }


def _our_bart(config: ConfigJson) -> dict[str, Scalar]:
    width, heads = config.integer("d_model", 1024), config.integer("encoder_attention_heads", 16)
    inner = config.integer("encoder_ffn_dim", 4096)
    for encoder, decoder in ((heads, "decoder_attention_heads"), (inner, "decoder_ffn_dim")):
        if config.integer(decoder, encoder) != encoder:
            raise CheckpointError(f"config.json: {decoder} is not the encoder's {encoder}")
    scaled: dict[str, Scalar] = {"embedding_scale": math.sqrt(width)} if config.flag("scale_embedding", False) else {}
    return {
        **our_post(config, width=width, heads=heads, act="activation_function"),
        **scaled,
        "kind": "encoder_decoder",
        "num_layers": config.integer("decoder_layers", 12),
        "num_encoder_layers": config.integer("encoder_layers", 12),
        "tie_embeddings": True,
        "share_source_embedding": True,
        "attention.max_position_embeddings": config.integer("max_position_embeddings", 1024),
        "mlp.ffn_hidden_size": inner,
        "norm.eps": 1e-5,
    }


def _bart_parts(model: Model) -> list[Part]:
    rows = int(model["embedding.num_embeddings"])
    parts: list[Part] = [
        same("embedding.table.weight", "model.shared.weight", rows),
        Constant("final_logits_bias", (1, rows), 0.0),
    ]
    for stack, layers in (("encoder", views(model, "encoder_layers")), ("decoder", views(model))):
        parts += _bart_stack(stack, layers)
    return parts


def _bart_stack(stack: str, layers: Sequence[Model]) -> list[Part]:
    width, positions = int(layers[0]["hidden_size"]), int(layers[0]["attention.max_position_embeddings"])
    own, their = f"{stack}.position_embedding.weight", f"model.{stack}.embed_positions.weight"
    parts: list[Part] = [
        Link({own: positions}, {their: positions + _SKIPPED_POSITIONS}, skipped=_SKIPPED_POSITIONS),
        *layer_norm(layers[0], f"{stack}.embedding_layernorm", f"model.{stack}.layernorm_embedding"),
    ]
    for number, layer in enumerate(layers):
        ours, theirs = f"{stack}.layers.{number}", f"model.{stack}.layers.{number}"
        mlp, itself = MlpConfig.of(layer), AttentionConfig.of(layer).to_itself("padding")
        parts += attention(itself, f"{ours}.attention", f"{theirs}.self_attn", _BART_NAMES, has_biases=True)
        parts += layer_norm(layer, f"{ours}.input_layernorm", f"{theirs}.self_attn_layer_norm")
        if stack == "decoder":
            crossing = itself.to_encoder("padding")
            parts += attention(
                crossing, f"{ours}.cross_attention", f"{theirs}.encoder_attn", _BART_NAMES, has_biases=True
            )
            parts += layer_norm(layer, f"{ours}.cross_layernorm", f"{theirs}.encoder_attn_layer_norm")
        parts += product(f"{ours}.mlp.fc", f"{theirs}.fc1", mlp.ffn_hidden_size, bias=mlp.bias)
        parts += product(f"{ours}.mlp.proj", f"{theirs}.fc2", width, bias=mlp.bias)
        parts += layer_norm(layer, f"{ours}.post_layernorm", f"{theirs}.final_layer_norm")
    return parts


ARCHITECTURES = (
    Architecture(
        "BERT",
        "BertForSequenceClassification",
        "bert",
        "encoder",
        {**_POST, "pooling": ("pooler",)},
        _bert,
        _our_bert,
        _bert_parts,
        BIASES | {"pooler_bias", "head_bias"},
        ignored=lambda name: name.endswith("position_ids"),
    ),
    Architecture(
        "BART",
        "BartForConditionalGeneration",
        "bart",
        "encoder_decoder",
        {**_POST, "share_source_embedding": (True,), "tie_embeddings": (True,)},
        _bart,
        _our_bart,
        _bart_parts,
        BIASES,
        ignored=lambda name: name.endswith("embed_tokens.weight"),
    ),
)
