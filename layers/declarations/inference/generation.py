"""Generating a text: the prompt is read at once, then token after token with cached keys and values.

The graph of a step has caches of a fixed capacity. There is one for each of a few capacities, so that the first steps
do not read the room that only the last ones fill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layers.declarations import dtypes, quantization
from layers.declarations.inference.mode import is_generated
from layers.declarations.stack import DecoderConfig, config_of
from layers.parameter import ParameterError, Scalar

BUCKETS = 4
"""Capacities that the steps of a text are spread over, where it has so many steps."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Steps whose caches have the same capacity."""

    capacity: int
    """Keys of a layer that sees all tokens: more than any of its steps finds in the cache."""
    steps: int


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """What one layer keeps: keys and values of its key and value heads."""

    num_heads: int
    head_size: int
    window: int | None
    """Tokens that a token sees, itself included; None: all."""
    dtype: str

    def capacity(self, longest: int) -> int:
        """Keys that the cache holds where a layer that sees all tokens holds `longest`."""
        # A window of one token sees no past: a cache of one key keeps the graph the same.
        return longest if self.window is None else min(longest, max(1, self.window - 1))

    def nbytes(self, batch_size: int, longest: int) -> int:
        """Of keys and values."""
        elements = 2 * batch_size * self.num_heads * self.capacity(longest) * self.head_size
        return elements * dtypes.BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """A completed section `inference` in the mode `generate`, and the caches of a completed model's layers."""

    batch_size: int
    prompt_tokens: int
    new_tokens: int
    caches: tuple[CacheConfig, ...]

    @classmethod
    def of(cls, model: Mapping[str, Scalar], inference: Mapping[str, Scalar]) -> GenerationConfig:
        """Raises ParameterError as `check_generation`."""
        check_generation(model, inference)
        config = config_of(model)
        assert isinstance(config, DecoderConfig), "check_generation lets no other through"
        return cls(
            batch_size=int(inference["batch_size"]),
            prompt_tokens=int(inference["prompt_tokens"]),
            new_tokens=int(inference["new_tokens"]),
            caches=tuple(
                CacheConfig(
                    num_heads=layer.num_kv_heads,
                    head_size=layer.attention_head_size,
                    window=layer.max_attention_window_size,
                    dtype=layer.dtype or str(model["dtype"]),
                )
                for layer in (block.attention for block in config.stack.blocks)
            ),
        )

    @property
    def capacity(self) -> int:
        """Keys of a layer that sees all tokens at the end: the last new token is read by nobody."""
        return self.prompt_tokens + self.new_tokens - 1

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """By rising capacity: steps in equal parts. The first new token is the prompt's answer, and no step."""
        steps = self.new_tokens - 1
        ends = sorted({-(-steps * part // BUCKETS) for part in range(1, BUCKETS + 1)})
        return tuple(
            Bucket(self.prompt_tokens + end, end - begin) for begin, end in zip((0, *ends), ends, strict=False)
        )

    @property
    def kv_cache_bytes(self) -> int:
        """Keys and values of all layers and sequences at the end of a text."""
        return sum(cache.nbytes(self.batch_size, self.capacity) for cache in self.caches)


def kv_cache_bytes(model: Mapping[str, Scalar], inference: Mapping[str, Scalar]) -> int | None:
    """Of a completed model and section; None where nothing is generated."""
    return GenerationConfig.of(model, inference).kv_cache_bytes if is_generated(inference) else None


def check_generation(model: Mapping[str, Scalar], inference: Mapping[str, Scalar]) -> None:
    """Raise ParameterError where a completed model cannot be asked token by token."""
    if model.get("embedding.prompt_length"):
        raise ParameterError(
            "embedding.kind",
            "the prompt of a PromptTuningEmbedding stands before the tokens, and is not cached yet",
            "choose Embedding, or inference.mode forward",
        )
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
