"""Stacks of blocks, and models and probes made of them: what each consists of, and what is known without building it.

Every configuration here has `parameter_count()` and `flops(shape)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from layers.declarations import attention
from layers.declarations.attention import AttentionConfig
from layers.declarations.embedding import EmbeddingConfig
from layers.declarations.linear import LinearConfig
from layers.declarations.mlp import MlpConfig
from layers.declarations.normalization import NormConfig
from layers.declarations.per_layer import kept, views
from layers.declarations.score_bias import ScoreBiasConfig
from layers.parameter import Scalar

Formatted = AttentionConfig | MlpConfig | EmbeddingConfig | LinearConfig
"""Layers whose weights may have a number format of their own."""


class Shape(NamedTuple):
    """Of one inference: sequences, tokens of each, and tokens of each source where there are two sequences."""

    batch_size: int
    sequence_length: int
    source_length: int

    @property
    def rows(self) -> int:
        return self.batch_size * self.sequence_length

    def prompted(self, prompt_length: int) -> Shape:
        """With a prompt before the tokens of each sequence."""
        return self._replace(sequence_length=self.sequence_length + prompt_length)

    def of_source(self) -> Shape:
        """The encoder's shape."""
        return Shape(self.batch_size, self.source_length, self.source_length)


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """Attention, attention to an encoder where it is wanted, and feed-forward, each with its norm."""

    attention: AttentionConfig
    cross_attention: AttentionConfig | None
    mlp: MlpConfig
    norm: NormConfig
    norm_position: str
    parallel: bool
    shared_norm: bool
    residual_scale: float
    counted: dict[Shape | None, int] = field(default_factory=dict[Shape | None, int], compare=False, repr=False)
    """What was counted already: operations by shape, and parameters, which have none."""

    @classmethod
    def of(cls, model: Mapping[str, Scalar], *, mask_type: str, cross_mask_type: str | None = None) -> BlockConfig:
        """The block of a model whose layers are alike. `cross_mask_type`: of its attention to an encoder, if any."""
        declared = AttentionConfig.of(model)
        return cls(
            attention=declared.to_itself(mask_type),
            cross_attention=None if cross_mask_type is None else declared.to_encoder(cross_mask_type),
            mlp=MlpConfig.of(model),
            norm=NormConfig.of(model),
            norm_position=str(model["norm_position"]),
            parallel=model.get("residual") == "parallel",
            shared_norm=bool(model.get("shared_norm", False)),
            residual_scale=float(model.get("residual_scale", 1.0)),
        )

    @property
    def norm_count(self) -> int:
        """One for each of its layers, two where what leaves them is normalized, too; layers may share one."""
        layers = 2 if self.cross_attention is None else 3
        return layers * (2 if self.norm_position == "sandwich" else 1) - self.shared_norm

    def formatted(self) -> Iterator[Formatted]:
        """Its layers that may have a number format of their own."""
        yield self.attention
        if self.cross_attention is not None:
            yield self.cross_attention
        yield self.mlp

    def parameter_count(self) -> int:
        """Without those of the score bias, which blocks of a stack share."""
        if None not in self.counted:
            self.counted[None] = self._parameter_count()
        return self.counted[None]

    def flops(self, shape: Shape) -> int:
        if shape not in self.counted:
            self.counted[shape] = self._flops(shape)
        return self.counted[shape]

    def _parameter_count(self) -> int:
        crossed = 0 if self.cross_attention is None else self.cross_attention.parameter_count()
        norms = self.norm_count * self.norm.parameter_count()
        return self.attention.parameter_count() + crossed + self.mlp.parameter_count() + norms

    def _flops(self, shape: Shape) -> int:
        batch, length = shape.batch_size, shape.sequence_length
        crossed = 0 if self.cross_attention is None else self.cross_attention.flops(batch, length, shape.source_length)
        return self.attention.flops(batch, length, length) + crossed + self.mlp.flops(shape.rows)


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Blocks between embeddings and head. `final_norm` is there where the last block normalizes what it reads.

    Of layers that differ, the embedding's norm is as the first one's, the final norm as the last one's. Blocks that are
    alike are one object, so that a deep model costs no more to count than a shallow one.
    """

    hidden_size: int
    max_position_embeddings: int
    position_rows: int
    embedding_scale: float
    embedding_norm: NormConfig | None
    blocks: tuple[BlockConfig, ...]
    final_norm: NormConfig | None

    @classmethod
    def of(cls, layers: Sequence[Mapping[str, Scalar]], blocks: tuple[BlockConfig, ...]) -> StackConfig:
        """`layers`: the model as each of its layers sees it, `blocks` what they are."""
        first, last = layers[0], layers[-1]
        return cls(
            hidden_size=int(first["hidden_size"]),
            max_position_embeddings=int(first["attention.max_position_embeddings"]),
            position_rows=max(kept(layer, "rows", attention.table_rows) for layer in layers),
            embedding_scale=float(first.get("embedding_scale", 1.0)),
            embedding_norm=NormConfig.of(first) if first["has_embedding_layernorm"] else None,
            blocks=blocks,
            final_norm=NormConfig.of(last) if last["norm_position"] != "post" else None,
        )

    @classmethod
    def over_itself(cls, model: Mapping[str, Scalar]) -> StackConfig:
        """A stack whose blocks attend to its own tokens alone, under the masks that the model names."""
        layers = views(model)
        blocks = _blocks(
            "over itself",
            layers,
            lambda layer: BlockConfig.of(layer, mask_type=str(layer["attention.attention_mask_type"])),
        )
        return cls.of(layers, blocks)

    @property
    def score_biases(self) -> tuple[ScoreBiasConfig, ...]:
        """Each that a block has, once."""
        layers = [layer for block, _ in self._runs() for layer in (block.attention, block.cross_attention)]
        return tuple(dict.fromkeys(layer.score_bias for layer in layers if layer is not None))

    def formatted(self) -> Iterator[Formatted]:
        for block in self.blocks:
            yield from block.formatted()

    def parameter_count(self) -> int:
        norms = [norm for norm in (self.embedding_norm, self.final_norm) if norm is not None]
        blocks = sum(count * block.parameter_count() for block, count in self._runs())
        others = sum(part.parameter_count() for part in (*self.score_biases, *norms))
        return self.position_rows * self.hidden_size + blocks + others

    def flops(self, shape: Shape) -> int:
        return sum(count * block.flops(shape) for block, count in self._runs())

    def _runs(self) -> list[tuple[BlockConfig, int]]:
        """The blocks that differ, each with how many there are of it."""
        counts = Counter(map(id, self.blocks))
        return [(block, counts[each]) for each, block in {id(block): block for block in self.blocks}.items()]


def _blocks(
    use: str, layers: Sequence[Mapping[str, Scalar]], make: Callable[[Mapping[str, Scalar]], BlockConfig]
) -> tuple[BlockConfig, ...]:
    """A block for each layer; layers that are one object get one block. `use`: what `make` makes of a layer."""
    made = {id(layer): kept(layer, use, make) for layer in {id(layer): layer for layer in layers}.values()}
    return tuple(made[id(layer)] for layer in layers)


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """From vectors to logits. `projection`, before a tied head: to the table's width, where it is not the model's."""

    linear: LinearConfig
    tied: bool
    projection: LinearConfig | None
    scale: float
    """Of what enters a tied head: T5 divides by the root of the width (Raffel et al. 2020, their code)."""
    logits_scale: float
    logits_softcap: float | None

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> HeadConfig:
        embedding, width, tied = EmbeddingConfig.of(model), int(model["hidden_size"]), bool(model["tie_embeddings"])
        projected = tied and embedding.projection is not None
        return cls(
            linear=LinearConfig(embedding.embedding_dim if tied else width, embedding.num_embeddings, bias=False),
            tied=tied,
            projection=LinearConfig(width, embedding.embedding_dim, bias=False) if projected else None,
            scale=width**-0.5 if model.get("rescale_before_lm_head", False) else 1.0,
            logits_scale=float(model.get("logits_scale", 1.0)),
            logits_softcap=float(model["logits_softcap"]) if "logits_softcap" in model else None,
        )

    def parameter_count(self) -> int:
        projected = self.projection.parameter_count() if self.projection else 0
        return projected + (0 if self.tied else self.linear.parameter_count())

    def flops(self, rows: int) -> int:
        return self.linear.flops(rows) + (self.projection.flops(rows) if self.projection else 0)


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
    """Tokens to the logits of classes. `pooler` is the layer that BERT puts between its first token and the classes."""

    embedding: EmbeddingConfig
    stack: StackConfig
    pooling: str
    pooler: LinearConfig | None
    classifier: LinearConfig

    @classmethod
    def of(cls, model: Mapping[str, Scalar]) -> EncoderConfig:
        width = int(model["hidden_size"])
        return cls(
            embedding=EmbeddingConfig.of(model),
            stack=StackConfig.over_itself(model),
            pooling=str(model["pooling"]),
            pooler=LinearConfig(width, width) if model["pooling"] == "pooler" else None,
            classifier=LinearConfig(width, int(model["classes"])),
        )

    def formatted(self) -> Iterator[Formatted]:
        yield self.embedding
        yield from self.stack.formatted()

    def parameter_count(self) -> int:
        pooled = self.pooler.parameter_count() if self.pooler else 0
        return pooled + sum(part.parameter_count() for part in (self.embedding, self.stack, self.classifier))

    def flops(self, shape: Shape) -> int:
        pooled = self.pooler.flops(shape.batch_size) if self.pooler else 0
        classified = self.classifier.flops(shape.batch_size)
        read = shape.prompted(self.embedding.prompt_length)
        return self.embedding.flops(read.rows) + self.stack.flops(read) + pooled + classified


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
        encoder = _blocks("encoder", reading, lambda layer: BlockConfig.of(layer, mask_type="padding"))
        decoder = _blocks(
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
    """What a completed model consists of. Raises KeyError where its rules are broken so far that a size is unknown."""
    return _CONFIGS[str(model["kind"])].of(model)
