"""Models and probes: what each consists of, and what is known without building it.

Every configuration here has `parameter_count()` and `flops(shape)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layers.declarations.assembly.block import BlockConfig, Formatted, Shape
from layers.declarations.assembly.heads import ClassifierConfig, HeadConfig
from layers.declarations.assembly.stack import StackConfig, blocks_of
from layers.declarations.attention import AttentionConfig
from layers.declarations.embedding import EmbeddingConfig
from layers.declarations.linear import LinearConfig
from layers.declarations.mlp import MlpConfig
from layers.declarations.normalization import NormConfig
from layers.declarations.per_layer import views
from layers.parameter import Scalar


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Tokens to the logits of the token after each of them."""

    embedding: EmbeddingConfig
    stack: StackConfig
    head: HeadConfig

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> DecoderConfig:
        return cls(EmbeddingConfig.of(model), StackConfig.over_itself(model), HeadConfig.of(model))

    def formatted(self) -> Iterator[Formatted]:
        yield self.embedding
        yield from self.stack.formatted()

    def parameter_count(self) -> int:
        return sum(part.parameter_count() for part in (self.embedding, self.stack, self.head))

    def flops(self, shape: Shape) -> int:
        read = shape.prompted(self.embedding.prompt_length)
        return self.embedding.flops(read.rows) + self.stack.flops(read) + self.head.flops(shape.rows)


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Tokens to the logits of classes."""

    embedding: EmbeddingConfig
    stack: StackConfig
    classifier: ClassifierConfig

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> EncoderConfig:
        return cls(EmbeddingConfig.of(model), StackConfig.over_itself(model), ClassifierConfig.of(model))

    def formatted(self) -> Iterator[Formatted]:
        yield self.embedding
        yield from self.stack.formatted()

    def parameter_count(self) -> int:
        return sum(part.parameter_count() for part in (self.embedding, self.stack, self.classifier))

    def flops(self, shape: Shape) -> int:
        read = shape.prompted(self.embedding.prompt_length)
        classified = self.classifier.flops(shape.batch_size)
        return self.embedding.flops(read.rows) + self.stack.flops(read) + classified


@dataclass(frozen=True, slots=True)
class EncoderDecoderConfig:
    """Source and target tokens to the logits of the token after each target token.

    `source_embedding` None: the encoder reads from the decoder's table.
    """

    source_embedding: EmbeddingConfig | None
    embedding: EmbeddingConfig
    encoder: StackConfig
    decoder: StackConfig
    head: HeadConfig

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> EncoderDecoderConfig:
        embedding = EmbeddingConfig.of(model)
        reading, writing = views(model, "encoder_layers"), views(model)
        encoder = blocks_of("encoder", reading, lambda layer: BlockConfig.of(layer, mask_type="padding"))
        decoder = blocks_of(
            "decoder",
            writing,
            lambda layer: BlockConfig.of(
                layer, mask_type=str(layer["attention.attention_mask_type"]), cross_mask_type="padding"
            ),
        )
        return cls(
            source_embedding=None if model["share_source_embedding"] else embedding.of_source(model),
            embedding=embedding if model["share_source_embedding"] else embedding.without_prompt(),
            encoder=StackConfig.of(reading, encoder),
            decoder=StackConfig.of(writing, decoder),
            head=HeadConfig.of(model),
        )

    def formatted(self) -> Iterator[Formatted]:
        if self.source_embedding is not None:
            yield self.source_embedding
        yield self.embedding
        yield from self.encoder.formatted()
        yield from self.decoder.formatted()

    def parameter_count(self) -> int:
        source = self.source_embedding.parameter_count() if self.source_embedding else 0
        return source + sum(part.parameter_count() for part in (self.embedding, self.encoder, self.decoder, self.head))

    def flops(self, shape: Shape) -> int:
        source = shape.of_source().prompted((self.source_embedding or self.embedding).prompt_length)
        shape = shape._replace(source_length=source.sequence_length)
        looked_up = (self.source_embedding or self.embedding).flops(source.rows) + self.embedding.flops(shape.rows)
        return looked_up + self.encoder.flops(source) + self.decoder.flops(shape) + self.head.flops(shape.rows)


@dataclass(frozen=True, slots=True)
class BlockProbeConfig:
    """One block by itself, with its score bias."""

    block: BlockConfig

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> BlockProbeConfig:
        mask_type = str(model["attention.attention_mask_type"])
        cross_mask_type = "bidirectional" if model["attention.cross_attention"] else None
        return cls(BlockConfig.of(model, mask_type=mask_type, cross_mask_type=cross_mask_type))

    def formatted(self) -> Iterator[Formatted]:
        return self.block.formatted()

    def parameter_count(self) -> int:
        return self.block.parameter_count() + self.block.attention.score_bias.parameter_count()

    def flops(self, shape: Shape) -> int:
        return self.block.flops(shape)


@dataclass(frozen=True, slots=True)
class AttentionProbeConfig:
    """One attention layer by itself, with its score bias."""

    attention: AttentionConfig

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> AttentionProbeConfig:
        return cls(AttentionConfig.of(model))

    def formatted(self) -> Iterator[Formatted]:
        yield self.attention

    def parameter_count(self) -> int:
        return self.attention.parameter_count() + self.attention.score_bias.parameter_count()

    def flops(self, shape: Shape) -> int:
        keys = shape.source_length if self.attention.cross_attention else shape.sequence_length
        return self.attention.flops(shape.batch_size, shape.sequence_length, keys)


@dataclass(frozen=True, slots=True)
class LayerProbeConfig:
    """One layer that knows no sequence by itself."""

    layer: MlpConfig | LinearConfig | NormConfig | EmbeddingConfig

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> LayerProbeConfig:
        return cls(_LAYERS[str(model["kind"])].of(model))

    def formatted(self) -> Iterator[Formatted]:
        if not isinstance(self.layer, NormConfig):
            yield self.layer

    def parameter_count(self) -> int:
        return self.layer.parameter_count()

    def flops(self, shape: Shape) -> int:
        return 0 if isinstance(self.layer, NormConfig) else self.layer.flops(shape.rows)


ModelConfig = (
    DecoderConfig | EncoderConfig | EncoderDecoderConfig | BlockProbeConfig | AttentionProbeConfig | LayerProbeConfig
)

_LAYERS = {"mlp": MlpConfig, "linear": LinearConfig, "norm": NormConfig, "embedding": EmbeddingConfig}

_CONFIGS: dict[str, type[ModelConfig]] = {
    "decoder": DecoderConfig,
    "encoder": EncoderConfig,
    "encoder_decoder": EncoderDecoderConfig,
    "block": BlockProbeConfig,
    "attention": AttentionProbeConfig,
    **dict.fromkeys(_LAYERS, LayerProbeConfig),
}


def config_of(model: Mapping[str, Scalar]) -> ModelConfig:
    """What a completed model consists of. Raises KeyError if its rules are broken so far that a size is unknown."""
    return _CONFIGS[str(model["kind"])].of(model)
