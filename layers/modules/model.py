"""The model that a completed declaration describes, or the single layer of a probe.

Each module's `forward` takes the inputs of `layers.signature` in its order. Shapes: B batch, T tokens, S source tokens,
D width, V logits a token (rows of the embedding), C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from layers.declarations.assembly.heads import HeadConfig
from layers.declarations.assembly.models import (
    AttentionProbeConfig,
    BlockProbeConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    LayerProbeConfig,
    config_of,
)
from layers.declarations.attention import AttentionConfig
from layers.declarations.embedding import EmbeddingConfig
from layers.declarations.linear import LinearConfig
from layers.declarations.masks import PADDING_MASKS
from layers.declarations.mlp import MlpConfig
from layers.declarations.normalization import NormConfig
from layers.modules.activations import ACTIVATIONS
from layers.modules.attention import build_attention
from layers.modules.embedding import Embedding, build_embedding
from layers.modules.linear import build_linear
from layers.modules.mlp import build_mlp
from layers.modules.normalization import build_norm
from layers.modules.score_bias import ScoreBias
from layers.modules.stack import Block, Stack, check_length, initialize
from layers.parameter import Scalar


class Head(nn.Module):
    """Vectors to logits, by a matrix of its own or by the embedding's table."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.scale = config.scale
        self.logits_scale = config.logits_scale
        self.logits_softcap = config.logits_softcap
        self.projection = build_linear(config.projection) if config.projection else None
        self.linear = None if config.tied else build_linear(config.linear)
        self.bias = nn.Parameter(torch.zeros(config.linear.out_features)) if config.bias else None

    def forward(self, x_BTD: Tensor, table: Tensor) -> Tensor:
        if self.linear is not None:
            return self.leaving(self.linear(x_BTD))
        return self.leaving(functional.linear(self.entering(x_BTD), table.to(x_BTD.dtype)))

    def entering(self, x_BTD: Tensor) -> Tensor:
        """What a tied head multiplies by the table."""
        if self.projection is not None:
            x_BTD = self.projection(x_BTD)
        return x_BTD if self.scale == 1.0 else x_BTD * self.scale

    def leaving(self, logits_BTV: Tensor) -> Tensor:
        """Logits as the model gives them: with the head's bias, scaled, then capped."""
        if self.bias is not None:
            logits_BTV = logits_BTV + self.bias
        if self.logits_scale != 1.0:
            logits_BTV = logits_BTV * self.logits_scale
        if self.logits_softcap is None:
            return logits_BTV
        return torch.tanh(logits_BTV / self.logits_softcap) * self.logits_softcap


class Decoder(nn.Module):
    """Tokens to the logits of the token after each of them."""

    def __init__(self, config: DecoderConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = build_embedding(config.embedding)
        self.stack = Stack(config.stack, dropout=dropout)
        self.head = Head(config.head)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """tokens int32 [B, T], T at most max_position_embeddings -> logits [B, T, V] in the model's number format."""
        x_BTD = self.stack(self.embedding.prompted(tokens_BT))[:, self.embedding.config.prompt_length :]
        return self.head(x_BTD, self.embedding.table.weight)


class Encoder(nn.Module):
    """Tokens to the logits of classes."""

    def __init__(self, config: EncoderConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.means = config.classifier.means
        self.masked = any(block.attention.attention_mask_type in PADDING_MASKS for block in config.stack.blocks)
        self.embedding = build_embedding(config.embedding)
        self.stack = Stack(config.stack, dropout=dropout)
        self.pooler = self.pooler_norm = None
        if (pooler := config.classifier.pooler) is not None:
            self.pooler = build_linear(pooler.linear)
            self.pooler_norm = build_norm(pooler.norm) if pooler.norm else None
            self.pooler_activation = ACTIVATIONS[pooler.hidden_act]
        self.dropout = nn.Dropout(dropout)
        self.classifier = build_linear(config.classifier.linear)

    def forward(self, tokens_BT: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens int32 [B, T]; mask int32: token_mask [B, T] or attention_mask [B, T, T], as its type needs ->
        logits [B, C]."""
        prompt_length = self.embedding.config.prompt_length
        x_BTD = self.stack(self.embedding.prompted(tokens_BT), _with_prompt(mask, prompt_length))[:, prompt_length:]
        x_BD = _mean(x_BTD, mask if self.masked else None) if self.means else x_BTD[:, 0]
        if self.pooler is not None:
            x_BD = self.pooler_activation(self.pooler(x_BD))
        return self.classifier(self.dropout(x_BD if self.pooler_norm is None else self.pooler_norm(x_BD)))


def _mean(x_BTD: Tensor, token_mask_BT: Tensor | None) -> Tensor:
    """Of each sequence's tokens but padding. In float32: a sum over many tokens loses its last digits in the smaller
    formats."""
    summed_BTD = x_BTD.float()
    if token_mask_BT is None:
        return summed_BTD.mean(dim=1).to(x_BTD.dtype)
    counted_BT1 = token_mask_BT.float().unsqueeze(-1)
    return ((summed_BTD * counted_BT1).sum(dim=1) / counted_BT1.sum(dim=1).clamp(min=1.0)).to(x_BTD.dtype)


class EncoderDecoder(nn.Module):
    """Source and target tokens to the logits of the token after each target token."""

    def __init__(self, config: EncoderDecoderConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.source_embedding = build_embedding(config.source_embedding) if config.source_embedding else None
        self.embedding = build_embedding(config.embedding)
        self.encoder = Stack(config.encoder, dropout=dropout)
        self.decoder = Stack(config.decoder, dropout=dropout)
        self.head = Head(config.head)

    def forward(self, source_BS: Tensor, source_mask_BS: Tensor, tokens_BT: Tensor) -> Tensor:
        """source int32 [B, S], its mask (1 a token, 0 padding), tokens int32 [B, T] -> logits [B, T, V]."""
        encoded_BSD, encoded_mask_BS = self.encode(source_BS, source_mask_BS)
        x_BTD = self.decoder(self.embedding(tokens_BT), None, encoded_BSD, encoded_mask_BS)
        return self.head(x_BTD, self.embedding.table.weight)

    def encode(self, source_BS: Tensor, source_mask_BS: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder attends to [B, S, D], and its mask [B, S]; S with the prompt before the source."""
        encoded_mask_BS = self.encoded_mask(source_mask_BS)
        return self.encoder(self._reader.prompted(source_BS), encoded_mask_BS), encoded_mask_BS

    def encoded_mask(self, source_mask_BS: Tensor) -> Tensor:
        """The mask of a source, with the prompt before it."""
        return cast("Tensor", _with_prompt(source_mask_BS, self._reader.config.prompt_length))

    @property
    def _reader(self) -> Embedding:
        """What reads the source."""
        return self.embedding if self.source_embedding is None else self.source_embedding


class Probe(nn.Module):
    """A layer that is given numbers, which it takes in float32 and works with in its own number format."""

    dtype_carrier: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Empty: it follows the module from format to format if a layer has no weights to tell by.
        self.register_buffer("dtype_carrier", torch.empty(0), persistent=False)

    def cast(self, x: Tensor) -> Tensor:
        return x.to(self.dtype_carrier.dtype)


class _AttendingProbe(Probe):
    """A layer with attention by itself."""

    def __init__(self, config: AttentionConfig, *, crosses: bool) -> None:
        super().__init__()
        self.crosses = crosses
        self.longest = config.max_position_embeddings
        self.score_bias = ScoreBias(config.score_bias)

    def _attended(
        self, hidden_states: Tensor, others: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """hidden_states, encoder_output and mask as the layer takes them."""
        check_length(hidden_states.shape[1], self.longest)
        x_BTD = self.cast(hidden_states)
        encoded_BSD, masks = (self.cast(others[0]), others[1:]) if self.crosses else (None, others)
        return x_BTD, encoded_BSD, masks[0] if masks else None


class BlockProbe(_AttendingProbe):
    """One block by itself."""

    def __init__(self, config: BlockProbeConfig) -> None:
        super().__init__(config.block.attention, crosses=config.block.cross_attention is not None)
        self.block = Block(config.block)

    def forward(self, hidden_states: Tensor, *others: Tensor) -> Tensor:
        """hidden_states float32 [B, T, D], encoder_output [B, S, D] if it has cross attention, a mask if its type has
        one -> [B, T, D]."""
        x_BTD, encoded_BSD, mask = self._attended(hidden_states, others)
        return self.block(x_BTD, self.score_bias(x_BTD, x_BTD.shape[1], mask), encoded_BSD)


class AttentionProbe(_AttendingProbe):
    """One attention layer by itself."""

    def __init__(self, config: AttentionProbeConfig) -> None:
        super().__init__(config.attention, crosses=config.attention.cross_attention)
        self.attention = build_attention(config.attention)

    def forward(self, hidden_states: Tensor, *others: Tensor) -> Tensor:
        """hidden_states float32 [B, T, D], encoder_output [B, S, D] if it is cross attention, a mask if its type has
        one -> [B, T, D]."""
        x_BTD, encoded_BSD, mask = self._attended(hidden_states, others)
        keys = x_BTD if encoded_BSD is None else encoded_BSD
        return self.attention(x_BTD, self.score_bias(x_BTD, keys.shape[1], mask), encoded_BSD)


class LayerProbe(Probe):
    """One layer that knows no sequence by itself."""

    def __init__(self, config: LayerProbeConfig) -> None:
        super().__init__()
        self.config = config.layer
        match config.layer:
            case MlpConfig():
                self.layer = build_mlp(config.layer)
            case LinearConfig():
                self.layer = build_linear(config.layer)
            case NormConfig():
                self.layer = build_norm(config.layer)
            case EmbeddingConfig():
                self.layer = build_embedding(config.layer)
            case _:
                assert_never(config.layer)

    def forward(self, values: Tensor, *tasks: Tensor) -> Tensor:
        """hidden_states float32 [B, T, D], or an embedding's tokens int32 [B, T], with tasks [B] if it has prompts
        -> [B, T, D]."""
        return self.layer(self.cast(values) if values.is_floating_point() else values, *tasks)


def _with_prompt(mask: Tensor | None, prompt_length: int) -> Tensor | None:
    """A mask [B, T] or [B, T, T] for sequences with a prompt before them, which all may see."""
    if mask is None or prompt_length == 0:
        return mask
    return functional.pad(mask, (prompt_length, 0) * (mask.dim() - 1), value=1)


def set_trainable(module: nn.Module, which: str) -> None:
    """Freeze all but what `training.trainable` names: "all", or the table of the prompt alone."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(which == "all" or name.endswith("prompts.weight"))


def build(model: Mapping[str, Scalar], *, dropout: float = 0.0, initialization: str = "gpt2") -> nn.Module:
    """The module of a completed model (`layers.completion`) that breaks no rule, in float32 and in
    training mode.

    `dropout` and `initialization` are what the section `training` says of them.
    Its weights are drawn from torch's global generator: call `torch.manual_seed` before for the same ones again.
    """
    module = _build(model, dropout)
    initialize(module, initialization)
    return module


def _build(model: Mapping[str, Scalar], dropout: float) -> nn.Module:
    match config_of(model):
        case DecoderConfig() as config:
            return Decoder(config, dropout=dropout)
        case EncoderConfig() as config:
            return Encoder(config, dropout=dropout)
        case EncoderDecoderConfig() as config:
            return EncoderDecoder(config, dropout=dropout)
        case BlockProbeConfig() as config:
            return BlockProbe(config)
        case AttentionProbeConfig() as config:
            return AttentionProbe(config)
        case LayerProbeConfig() as config:
            return LayerProbe(config)


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a declared `dtype`."""
    return {
        "float32": torch.float32,
        "tf32": torch.float32,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }[name]
