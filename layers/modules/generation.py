"""The two halves of generating a text, over the weights of a model: read the prompt, then token after token.

Shapes: B batch, P tokens of the prompt, S keys of the cache, E keys of the encoder's output, K key and value heads,
H head size, V logits. A prompt that is learnt (PromptTuningEmbedding) is read before the tokens, and counts as tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

from layers.modules.key_values import KeyValues
from layers.modules.model import Decoder, EncoderDecoder
from layers.modules.stack import Stack

GenerativeModel = Decoder | EncoderDecoder
"""Models that give the logits of the token after each of theirs."""


class Prefill(nn.Module):
    """The prompt to the logits of the token after it, and each layer's keys and values."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens_BP: Tensor) -> tuple[Tensor, ...]:
        """tokens int32 [B, P] -> logits [B, V], then of each layer keys and values [B, K, P, H]."""
        decoder = self.decoder
        layers = [KeyValues() for _ in decoder.stack.config.blocks]
        x_BPD = decoder.stack(decoder.embedding.prompted(tokens_BP), key_values=layers)
        logits_B1V = decoder.head(x_BPD[:, -1:], decoder.embedding.table.weight)
        return (logits_B1V[:, 0], *_taken(layers))


class SourcePrefill(nn.Module):
    """The source, which is encoded once, and the first tokens to the logits of the token after them, and keys and
    values of both."""

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, source_BS: Tensor, source_mask_BS: Tensor, tokens_BP: Tensor) -> tuple[Tensor, ...]:
        """source int32 [B, S], its mask, tokens int32 [B, P] -> logits [B, V], then of each layer keys and values of
        the tokens [B, K, P, H], then of each layer those of the encoder's output [B, K, E, H]."""
        model = self.model
        encoded_BED, encoded_mask_BE = model.encode(source_BS, source_mask_BS)
        layers = [KeyValues(source=KeyValues()) for _ in model.decoder.config.blocks]
        x_BPD = model.decoder(model.embedding(tokens_BP), None, encoded_BED, encoded_mask_BE, layers)
        logits_B1V = model.head(x_BPD[:, -1:], model.embedding.table.weight)
        of_source = [layer.source for layer in layers if layer.source is not None]
        return (logits_B1V[:, 0], *_taken(layers), *_taken(of_source))


class Decode(nn.Module):
    """One token of each sequence to the logits of the next, and each layer's keys and values of that token.

    Past keys and values are inputs of a fixed capacity, in any order: where each lies in the text is an input, too.
    """

    def __init__(self, model: GenerativeModel) -> None:
        super().__init__()
        self.model = model
        self.windows = windows_of(model)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """tokens int32 [B, 1], all at position int32 [1]; for each of `windows` the positions int32 [S] of the keys
        (-1: none); of each layer past keys and values [B, K, S, H]; if there is an encoder the mask int32 of its
        source, and of each layer keys and values of its output [B, K, E, H]
        -> logits [B, V], then of each layer new keys and values [B, K, 1, H]."""
        model, stack, count = self.model, stack_of(self.model), len(self.windows)
        tokens_B1, position_1, *others = inputs
        positions = dict(zip(self.windows, others[:count], strict=True))
        end = count + 2 * len(stack.config.blocks)
        layers = [KeyValues(past=pair, position=position_1) for pair in _pairs(others[count:end])]
        encoded_mask_BE: Tensor | None = None
        if isinstance(model, EncoderDecoder):
            encoded_mask_BE = model.encoded_mask(others[end])
            for layer, pair in zip(layers, _pairs(others[end + 1 :]), strict=True):
                layer.source = KeyValues(past=pair)
        x_B1D = stack.decode(model.embedding(tokens_B1), position_1, positions, layers, encoded_mask_BE)
        logits_B1V = model.head(x_B1D, model.embedding.table.weight)
        return (logits_B1V[:, 0], *_taken(layers))


def prefill_of(model: GenerativeModel) -> Prefill | SourcePrefill:
    """The half that reads the prompt."""
    return SourcePrefill(model) if isinstance(model, EncoderDecoder) else Prefill(model)


def stack_of(model: GenerativeModel) -> Stack:
    """The blocks that read the tokens."""
    return model.decoder if isinstance(model, EncoderDecoder) else model.stack


def unread_by_steps(model: GenerativeModel) -> frozenset[str]:
    """The parameters that the prompt alone is read with: of an encoder, and of what is kept of its output."""
    if not isinstance(model, EncoderDecoder):
        return frozenset()
    once = re.compile(r"encoder\.|source_embedding\.|.*\.cross_attention\.(key_value|k_layernorm)\.")
    return frozenset(name for name, _ in model.named_parameters() if once.match(name))


def windows_of(model: GenerativeModel) -> tuple[int | None, ...]:
    """The windows of the layers that read the tokens, each once, in their order; None: a layer sees all."""
    blocks = stack_of(model).config.blocks
    return tuple(dict.fromkeys(block.attention.max_attention_window_size for block in blocks))


def _pairs(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values, which lie in turn."""
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def _taken(layers: Sequence[KeyValues]) -> list[Tensor]:
    """Keys and values of each layer in turn."""
    taken: list[Tensor] = []
    for layer in layers:
        assert layer.new is not None, "each layer sets it"
        taken += layer.new
    return taken
