"""A block: attention, attention to an encoder if there is one, and feed-forward, each with its norm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from layers.declarations.attention import AttentionConfig
from layers.declarations.embedding import EmbeddingConfig
from layers.declarations.linear import LinearConfig
from layers.declarations.mlp import MlpConfig
from layers.declarations.normalization import NormConfig
from layers.parameter import Scalar

Formatted = AttentionConfig | MlpConfig | EmbeddingConfig | LinearConfig
"""Layers whose weights may have a number format of their own."""


class Shape(NamedTuple):
    """Of one inference: sequences, tokens of each, and tokens of each source if there are two sequences."""

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
    """Attention, attention to an encoder if it is wanted, and feed-forward, each with its norm."""

    attention: AttentionConfig
    cross_attention: AttentionConfig | None
    mlp: MlpConfig
    norm: NormConfig
    norm_position: str
    parallel: bool
    shared_norm: bool
    residual_scale: float
    reads_as_is: bool = False
    """Its attention reads what enters without a norm of its own."""
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

    def without_first_norm(self) -> BlockConfig:
        """The same block, whose attention reads what enters as it is."""
        return replace(self, reads_as_is=True, counted={})

    @property
    def norm_count(self) -> int:
        """One for each of its layers, two if what leaves them is normalized, too; layers may share one."""
        layers = 2 if self.cross_attention is None else 3
        return layers * (2 if self.norm_position == "sandwich" else 1) - self.shared_norm - self.reads_as_is

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
