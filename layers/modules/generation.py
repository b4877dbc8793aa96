"""The two halves of generating a text, over the weights of a `Decoder`: read the prompt, then token after token.

Shapes: B batch, P tokens of the prompt, S keys of the cache, K key and value heads, H head size, V logits.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from layers.modules.key_values import KeyValues
from layers.modules.model import Decoder


class Prefill(nn.Module):
    """The prompt to the logits of the token after it, and each layer's keys and values."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens_BP: Tensor) -> tuple[Tensor, ...]:
        """tokens int32 [B, P] -> logits [B, V], then of each layer keys and values [B, K, P, H]."""
        decoder = self.decoder
        layers = [KeyValues() for _ in decoder.stack.layers]
        x_BPD = decoder.stack(decoder.embedding(tokens_BP), key_values=layers)
        logits_B1V = decoder.head(x_BPD[:, -1:], decoder.embedding.table.weight)
        return (logits_B1V[:, 0], *_taken(layers))


class Decode(nn.Module):
    """One token of each sequence to the logits of the next, and each layer's keys and values of that token.

    Past keys and values are inputs of a fixed capacity, in any order: where each lies in the text is an input, too.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.windows = windows_of(decoder)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """tokens int32 [B, 1], all at position int32 [1]; for each of `windows` the positions int32 [S] of the keys
        (-1: none); of each layer past keys and values [B, K, S, H]
        -> logits [B, V], then of each layer new keys and values [B, K, 1, H]."""
        decoder, count = self.decoder, len(self.windows)
        tokens_B1, position_1, *others = inputs
        positions = dict(zip(self.windows, others[:count], strict=True))
        past = iter(others[count:])
        layers = [KeyValues(past=pair, position=position_1) for pair in zip(past, past, strict=True)]
        x_B1D = decoder.stack.decode(decoder.embedding(tokens_B1), position_1, positions, layers)
        logits_B1V = decoder.head(x_B1D, decoder.embedding.table.weight)
        return (logits_B1V[:, 0], *_taken(layers))


def windows_of(decoder: Decoder) -> tuple[int | None, ...]:
    """The windows of a decoder's layers, each once, in the order of the layers; None: a layer sees all."""
    blocks = decoder.stack.config.blocks
    return tuple(dict.fromkeys(block.attention.max_attention_window_size for block in blocks))


def _taken(layers: Iterable[KeyValues]) -> list[Tensor]:
    """Keys and values of each layer in turn."""
    taken: list[Tensor] = []
    for layer in layers:
        assert layer.new is not None, "each layer sets it"
        taken += layer.new
    return taken
