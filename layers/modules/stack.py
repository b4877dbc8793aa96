"""Blocks, and stacks of them.

Shapes: x_BTD, B batch, T tokens, S tokens of the encoder, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from layers.declarations.assembly.block import BlockConfig
from layers.declarations.assembly.stack import StackConfig
from layers.declarations.score_bias import ScoreBiasConfig
from layers.modules.attention import build_attention
from layers.modules.key_values import KeyValues
from layers.modules.mlp import build_mlp
from layers.modules.normalization import build_norm
from layers.modules.positions import Sinusoids
from layers.modules.score_bias import ScoreBias

INITIAL_DEVIATION = 0.02
"""Of matrices and tables at the start (Radford et al. 2019; karpathy/nanoGPT model.py)."""

RESIDUAL_WRITERS = ("attention.dense", "mlp.proj")
"""The last products of what a block adds to the residual stream."""


class Block(nn.Module):
    """Attention, attention to an encoder if there is one, and feed-forward, each added to the residual stream.

    Normalized before each (pre), after it is added (post), before and after each (sandwich) or after each (branch);
    one after the other, or attention and feed-forward side by side (parallel).
    """

    def __init__(self, config: BlockConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.input_layernorm = None if config.reads_as_is else build_norm(config.norm)
        self.attention = build_attention(config.attention, dropout=dropout)
        self.cross_layernorm = self.cross_attention = None
        if config.cross_attention is not None:
            self.cross_layernorm = build_norm(config.norm)
            self.cross_attention = build_attention(config.cross_attention, dropout=dropout)
        self.post_layernorm = None if config.shared_norm else build_norm(config.norm)
        self.mlp = build_mlp(config.mlp)
        self.attention_output_layernorm = self.cross_output_layernorm = self.mlp_output_layernorm = None
        if config.norm_position == "sandwich":
            self.attention_output_layernorm = build_norm(config.norm)
            self.cross_output_layernorm = build_norm(config.norm) if self.cross_attention is not None else None
            self.mlp_output_layernorm = build_norm(config.norm)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_BTD: Tensor,
        bias_BNTS: Tensor | None = None,
        encoded_BSD: Tensor | None = None,
        cross_bias_BNTS: Tensor | None = None,
        key_values: KeyValues | None = None,
    ) -> Tensor:
        """`key_values`: of the tokens' attention to each other, and of that to an encoder: see there."""
        if self.config.parallel:
            return self._side_by_side(x_BTD, bias_BNTS, key_values)
        norms = (self.input_layernorm, self.attention_output_layernorm)
        x_BTD = self._added(x_BTD, norms, self.attention, bias_BNTS, None, key_values)
        if self.cross_attention is not None:
            norms = (self.cross_layernorm, self.cross_output_layernorm)
            of_source = None if key_values is None else key_values.source
            x_BTD = self._added(x_BTD, norms, self.cross_attention, cross_bias_BNTS, encoded_BSD, of_source)
        return self._added(x_BTD, (self.post_layernorm, self.mlp_output_layernorm), self.mlp)

    def _side_by_side(self, x_BTD: Tensor, bias_BNTS: Tensor | None, key_values: KeyValues | None) -> Tensor:
        """Feed-forward is written first: TensorRT 8.6 builds a wrong engine, without a warning, of the other order."""
        attended_BTD = x_BTD if self.input_layernorm is None else self.input_layernorm(x_BTD)
        read_BTD = attended_BTD if self.post_layernorm is None else self.post_layernorm(x_BTD)
        x_BTD = x_BTD + self._scaled(self.dropout(self.mlp(read_BTD)))
        return x_BTD + self._scaled(self.dropout(self.attention(attended_BTD, bias_BNTS, None, key_values)))

    def _added(
        self,
        x_BTD: Tensor,
        norms: tuple[nn.Module | None, nn.Module | None],
        layer: nn.Module,
        *arguments: Tensor | KeyValues | None,
    ) -> Tensor:
        """`norms`: of the layer, and of what leaves it if that is normalized, too."""
        norm, outgoing = norms
        if norm is None:
            assert self.config.norm_position == "pre", "what leaves a layer is normalized"
            return x_BTD + self._scaled(self.dropout(layer(x_BTD, *arguments)))
        match self.config.norm_position:
            case "pre":
                return x_BTD + self._scaled(self.dropout(layer(norm(x_BTD), *arguments)))
            case "sandwich":
                assert outgoing is not None
                return x_BTD + self._scaled(self.dropout(outgoing(layer(norm(x_BTD), *arguments))))
            case "branch":
                return x_BTD + self._scaled(self.dropout(norm(layer(x_BTD, *arguments))))
            case _:
                return norm(x_BTD + self._scaled(self.dropout(layer(x_BTD, *arguments))))

    def _scaled(self, branch_BTD: Tensor) -> Tensor:
        """What is added to the residual stream."""
        return branch_BTD if self.config.residual_scale == 1.0 else branch_BTD * self.config.residual_scale


class Stack(nn.Module):
    """Embedded tokens to what the head reads."""

    def __init__(self, config: StackConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.position_embedding = (
            nn.Embedding(config.position_rows, config.hidden_size) if config.position_rows else None
        )
        self.sinusoids = Sinusoids(config.sinusoidal_rows, config.hidden_size) if config.sinusoidal_rows else None
        self.embedding_layernorm = build_norm(config.embedding_norm) if config.embedding_norm else None
        self.dropout = nn.Dropout(dropout)
        self.score_biases = nn.ModuleList(ScoreBias(bias) for bias in config.score_biases)
        self.layers = nn.ModuleList(Block(block, dropout=dropout) for block in config.weighted_blocks)
        self.final_layernorm = build_norm(config.final_norm) if config.final_norm else None
        self._crossing = {block.cross_attention.score_bias for block in config.blocks if block.cross_attention}

    def forward(
        self,
        x_BTD: Tensor,
        mask: Tensor | None = None,
        encoded_BSD: Tensor | None = None,
        encoded_mask: Tensor | None = None,
        key_values: Sequence[KeyValues] = (),
    ) -> Tensor:
        """mask: as the stack's mask type needs it, [B, T] or [B, T, T]; of an encoder's output [B, S].

        `key_values`: take each layer's keys and values of these tokens; none if nobody needs them.
        """
        length = x_BTD.shape[1]
        check_length(length, self.config.max_position_embeddings)
        x_BTD = self._embedded(x_BTD)
        biases: dict[ScoreBiasConfig, Tensor | None] = {}
        for bias in self.score_biases:
            assert isinstance(bias, ScoreBias)
            if bias.config in self._crossing and encoded_BSD is not None:
                biases[bias.config] = bias(x_BTD, encoded_BSD.shape[1], encoded_mask)
            else:
                biases[bias.config] = bias(x_BTD, length, mask)
        taking = key_values or (None,) * len(self.config.blocks)
        for number, (block, taken) in enumerate(zip(self.config.blocks, taking, strict=True)):
            crossed = block.cross_attention and biases[block.cross_attention.score_bias]
            x_BTD = self._layer(number)(x_BTD, biases[self.config.score_bias(number)], encoded_BSD, crossed, taken)
        return x_BTD if self.final_layernorm is None else self.final_layernorm(x_BTD)

    def decode(
        self,
        x_B1D: Tensor,
        position_1: Tensor,
        positions: Mapping[int | None, Tensor],
        key_values: Sequence[KeyValues],
        encoded_mask_BS: Tensor | None = None,
    ) -> Tensor:
        """One more token of each sequence, all at `position_1`.

        key_values: of each layer, with those of earlier tokens and of an encoder's output, if there is one.
        positions: of the earlier tokens, by the layers' window; -1 if there is none. encoded_mask_BS: of the
        encoder's output.
        """
        x_B1D = self._embedded(x_B1D, position_1)
        longest = self.config.max_position_embeddings - 1
        biases: dict[ScoreBiasConfig, Tensor | None] = {}
        for bias in self.score_biases:
            assert isinstance(bias, ScoreBias)
            if bias.config in self._crossing and encoded_mask_BS is not None:
                biases[bias.config] = bias(x_B1D, encoded_mask_BS.shape[1], encoded_mask_BS)
            else:
                past_S = positions[bias.config.window_size]
                biases[bias.config] = bias.of_token(x_B1D.dtype, position_1, past_S, longest)
        for number, (block, held) in enumerate(zip(self.config.blocks, key_values, strict=True)):
            crossed = block.cross_attention and biases[block.cross_attention.score_bias]
            x_B1D = self._layer(number)(x_B1D, biases[self.config.score_bias(number)], None, crossed, held)
        return x_B1D if self.final_layernorm is None else self.final_layernorm(x_B1D)

    def _layer(self, number: int) -> nn.Module:
        """The block that a layer runs, which may be other layers' as well."""
        return self.layers[number // self.config.sharing]

    def _embedded(self, x_BTD: Tensor, position_1: Tensor | None = None) -> Tensor:
        """What the first layer reads. `position_1`: of a single token; None: they are the first tokens."""
        if self.config.embedding_scale != 1.0:
            x_BTD = x_BTD * self.config.embedding_scale
        if self.position_embedding is not None:
            table = self.position_embedding
            x_BTD = x_BTD + (table.weight[: x_BTD.shape[1]] if position_1 is None else table(position_1))
        if self.sinusoids is not None:
            x_BTD = x_BTD + self.sinusoids(x_BTD, position_1)
        if self.embedding_layernorm is not None:
            x_BTD = self.embedding_layernorm(x_BTD)
        return self.dropout(x_BTD)


def check_length(tokens: int, longest: int) -> None:
    """Raise ValueError for a sequence that a model does not take."""
    if tokens > longest:
        raise ValueError(f"{tokens} tokens are more than max_position_embeddings = {longest}")


def initialize(module: nn.Module, initialization: str = "gpt2") -> None:
    """Normal matrices, those that write to a stack's residual stream smaller by the root of their number; biases zero.

    The deviation of a matrix is INITIAL_DEVIATION ("gpt2": Radford et al. 2019), or the root of 1 / its inputs
    ("fan_in": LeCun et al. 1998, Efficient BackProp), which does not shrink what a narrow layer passes on. That of a
    table is INITIAL_DEVIATION.
    """
    writers = {id(writer): share for stack in module.modules() for writer, share in _writers(stack)}
    for part in module.modules():
        if isinstance(part, nn.Linear):
            deviation = 1 / math.sqrt(part.in_features) if initialization == "fan_in" else INITIAL_DEVIATION
            nn.init.normal_(part.weight, std=deviation * writers.get(id(part), 1.0))
            if part.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=INITIAL_DEVIATION)
        if isinstance(part, ScoreBias) and part.relative is not None:
            nn.init.normal_(part.relative.table, std=INITIAL_DEVIATION)


def _writers(stack: nn.Module) -> list[tuple[nn.Module, float]]:
    """The products that write to the residual stream of a stack, and the share of the usual deviation they start at."""
    if not isinstance(stack, Stack):
        return []
    found = [part for name, part in stack.named_modules() if name.endswith(RESIDUAL_WRITERS)]
    # Layers that share weights add what they write as often as they run.
    return [(part, 1 / math.sqrt(len(found) * stack.config.sharing)) for part in found]
