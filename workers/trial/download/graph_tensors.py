"""The tensors of the graphs that a text is generated with: names, types, shapes, and what each is.

Letters: B sequences, P tokens of the prompt, V logits, K key and value heads, H head size, C keys of a cache, E keys of
an encoder's output, W a sliding window.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from layers.declarations.inference.generation import CacheConfig, GenerationConfig
from layers.signature import Signature, TensorSpec

MEANINGS: Mapping[str, str] = {
    "tokens": "the tokens that are read",
    "source": "what the encoder reads, filled up to S tokens",
    "source_mask": "1 for a token of the source, 0 for what fills it up",
    "position": "where in the text the token lies that is read: 0 is the first, and learned vectors before the "
    "tokens count",
    "positions": "for layers that see the whole text: where in the text the key in each slot of their caches is from; "
    "-1 for an empty slot",
    "positions_W": "for layers that see a sliding window of W tokens, the token that is read included: where in the "
    "text the key in each slot of their caches is from; -1 for an empty slot",
    "past_key_i": "the keys that layer i has cached: the token at position p lies in slot p mod C",
    "past_value_i": "the values beside them",
    "logits": "of the token after the last one that is read",
    "key_i": "the keys of layer i for the tokens that are read: rows of past_key_i, along its third axis",
    "value_i": "the values beside them",
    "source_key_i": "the keys of layer i for the source: an output of the prompt's graph, an input of each step",
    "source_value_i": "the values beside them",
}
"""By name, without the number of a layer and the size of a window."""

_LAYER, _WINDOW = re.compile(r"(key|value)_\d+$"), re.compile(r"positions_\d+$")


def family(name: str) -> str:
    """The name among MEANINGS of a tensor."""
    return _WINDOW.sub("positions_W", _LAYER.sub(r"\1_i", name))


def prefill_tensors(config: GenerationConfig, logits: TensorSpec) -> Signature:
    """Of the graph of a prompt. logits: of the model that reads the whole text."""
    batch, source = config.batch_size, config.source
    inputs = [TensorSpec("tokens", "int32", (batch, config.prompt_tokens))]
    outputs = [_logits(config, logits), *_rows("", config.caches, batch, config.prompt_length + config.prompt_tokens)]
    if source is not None:
        inputs = [TensorSpec(name, "int32", (batch, source.tokens)) for name in ("source", "source_mask")] + inputs
        outputs += _rows("source_", source.caches, batch, source.keys)
    return Signature(tuple(inputs), tuple(outputs))


def decode_tensors(config: GenerationConfig, logits: TensorSpec) -> Signature:
    """Of the graph of a step whose caches hold a whole text."""
    batch, source, longest = config.batch_size, config.source, config.capacity
    inputs = [TensorSpec("tokens", "int32", (batch, 1)), TensorSpec("position", "int32", (1,))]
    for cache in {each.window: each for each in config.caches}.values():
        name = "positions" if cache.window is None else f"positions_{cache.window}"
        inputs.append(TensorSpec(name, "int32", (cache.capacity(longest),)))
    for layer, cache in enumerate(config.caches):
        inputs += _pair("past_", layer, cache, batch, cache.capacity(longest))
    if source is not None:
        inputs += [TensorSpec("source_mask", "int32", (batch, source.tokens))]
        inputs += _rows("source_", source.caches, batch, source.keys)
    return Signature(tuple(inputs), (_logits(config, logits), *_rows("", config.caches, batch, 1)))


def _logits(config: GenerationConfig, logits: TensorSpec) -> TensorSpec:
    return TensorSpec("logits", logits.dtype, (config.batch_size, logits.shape[-1]))


def _rows(prefix: str, caches: tuple[CacheConfig, ...], batch: int, keys: int) -> list[TensorSpec]:
    return [each for layer, cache in enumerate(caches) for each in _pair(prefix, layer, cache, batch, keys)]


def _pair(prefix: str, layer: int, cache: CacheConfig, batch: int, keys: int) -> list[TensorSpec]:
    shape = (batch, cache.num_heads, keys, cache.head_size)
    dtype = "float32" if cache.dtype == "tf32" else cache.dtype
    return [TensorSpec(f"{prefix}{name}_{layer}", dtype, shape) for name in ("key", "value")]
