"""Generating a text: the prompt is read at once, then token after token with cached keys and values.

The graph of a step has caches of a fixed capacity. There is one for each of a few capacities, so that the first steps
do not read the room that only the last ones fill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layers.declarations import dtypes, quantization
from layers.declarations.assembly.models import DecoderConfig, EncoderDecoderConfig, config_of
from layers.declarations.attention import AttentionConfig
from layers.declarations.inference.mode import is_generated
from layers.parameter import ParameterError, Scalar

BUCKETS = 4
"""Capacities that the steps of a text are spread over, if it has so many steps."""

ALIGNMENT = 8
"""A cache holds a multiple of so many keys. In float16 TensorRT's products of 255 keys were measured to be far slower
than those of 224 (benchmarks/findings/nvidia-gpu.md)."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Steps whose caches have the same capacity."""

    capacity: int
    """Keys of a layer that sees all tokens: more than any of its steps finds in the cache."""
    steps: int
    first: int
    """The position of the token that the first of them reads."""

    @property
    def measured_position(self) -> int:
        """Of the step that is measured: amid them."""
        return self.first + self.steps // 2


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """What one layer keeps: keys and values of its key and value heads."""

    num_heads: int
    head_size: int
    window: int | None
    """Tokens that a token sees, itself included; None: all."""
    dtype: str

    @classmethod
    def of(cls, layer: AttentionConfig, model: Mapping[str, Scalar]) -> CacheConfig:
        return cls(
            num_heads=layer.num_kv_heads,
            head_size=layer.attention_head_size,
            window=layer.max_attention_window_size,
            dtype=layer.dtype or str(model["dtype"]),
        )

    def capacity(self, longest: int) -> int:
        """Keys that the cache holds if a layer that sees all tokens holds `longest`."""
        # A window of one token sees no past: a cache of one key keeps the graph the same.
        return longest if self.window is None else min(longest, _aligned(max(1, self.window - 1)))

    def nbytes(self, batch_size: int, longest: int) -> int:
        """Of keys and values."""
        elements = 2 * batch_size * self.num_heads * self.capacity(longest) * self.head_size
        return elements * dtypes.BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """What an encoder reads once, and what each layer of the decoder keeps of it."""

    tokens: int
    keys: int
    """Tokens, with those of a learned prompt before them."""
    caches: tuple[CacheConfig, ...]


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """A completed section `inference` in the mode `generate`, and the caches of a completed model's layers."""

    batch_size: int
    prompt_tokens: int
    new_tokens: int
    caches: tuple[CacheConfig, ...]
    prompt_length: int = 0
    """Learned vectors before the tokens, which are cached like them."""
    source: SourceConfig | None = None
    """None: there is no encoder."""

    @classmethod
    def of(cls, model: Mapping[str, Scalar], inference: Mapping[str, Scalar]) -> GenerationConfig:
        """Raises ParameterError as `check_generation`."""
        check_generation(model, inference)
        config, learned = config_of(model), int(model.get("embedding.prompt_length", 0))
        assert isinstance(config, DecoderConfig | EncoderDecoderConfig), "check_generation lets no other through"
        stack = config.stack if isinstance(config, DecoderConfig) else config.decoder
        source: SourceConfig | None = None
        if isinstance(config, EncoderDecoderConfig):
            # Its learned prompt stands before the source.
            tokens = int(inference["source_length"])
            crossing = [block.cross_attention for block in stack.blocks if block.cross_attention is not None]
            source = SourceConfig(tokens, tokens + learned, tuple(CacheConfig.of(layer, model) for layer in crossing))
        return cls(
            batch_size=int(inference["batch_size"]),
            prompt_tokens=int(inference["prompt_tokens"]),
            new_tokens=int(inference["new_tokens"]),
            caches=tuple(CacheConfig.of(block.attention, model) for block in stack.blocks),
            prompt_length=0 if source else learned,
            source=source,
        )

    @property
    def text_tokens(self) -> int:
        """Tokens that are read of a text: the last new one is read by nobody."""
        return self.prompt_tokens + self.new_tokens - 1

    @property
    def capacity(self) -> int:
        """Room for the keys of a layer that sees all tokens, at the end."""
        return _aligned(self.prompt_length + self.text_tokens)

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """By rising capacity: steps in equal parts, those of the same capacity together. The first new token is the
        prompt's answer, and no step."""
        steps, prompt = self.new_tokens - 1, self.prompt_length + self.prompt_tokens
        lasts = {_aligned(prompt + end): end for end in (-(-steps * part // BUCKETS) for part in range(1, BUCKETS + 1))}
        return tuple(
            Bucket(capacity, end - begin, prompt + begin)
            for (capacity, end), begin in zip(lasts.items(), (0, *lasts.values()), strict=False)
        )

    @property
    def kv_cache_bytes(self) -> int:
        """Room for keys and values of all layers and sequences at the end of a text, with those of its source."""
        of_text = sum(cache.nbytes(self.batch_size, self.capacity) for cache in self.caches)
        if self.source is None:
            return of_text
        return of_text + sum(cache.nbytes(self.batch_size, self.source.keys) for cache in self.source.caches)


def _aligned(keys: int) -> int:
    return -(-keys // ALIGNMENT) * ALIGNMENT


def kv_cache_bytes(model: Mapping[str, Scalar], inference: Mapping[str, Scalar]) -> int | None:
    """Of a completed model and section; None if nothing is generated."""
    return GenerationConfig.of(model, inference).kv_cache_bytes if is_generated(inference) else None


def check_generation(model: Mapping[str, Scalar], inference: Mapping[str, Scalar]) -> None:
    """Raise ParameterError if a completed model cannot be asked token by token."""
    if (method := quantization.of_model(model)) != quantization.NONE:
        raise ParameterError(
            "quantization",
            f"{method} is calibrated on whole sequences: the graphs of inference.mode generate are not quantized yet",
            "choose none, or inference.mode forward",
        )
    for path, value in model.items():
        if path.endswith("tp_size") and value != 1:
            raise ParameterError(
                path,
                f"{value} devices have a share of the keys each: inference.mode generate is of one device",
                "leave it out, or choose inference.mode forward",
            )
