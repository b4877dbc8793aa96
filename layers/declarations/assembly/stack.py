"""Stacks of blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from layers.declarations import attention
from layers.declarations.assembly.block import BlockConfig, Formatted, Shape
from layers.declarations.normalization import NormConfig
from layers.declarations.per_layer import kept, views
from layers.declarations.score_bias import ScoreBiasConfig
from layers.parameter import Scalar


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Blocks between embeddings and head. `final_norm` is there if the last block normalizes what it reads.

    Of layers that differ, the embedding's norm is as the first one's, the final norm as the last one's. Blocks that are
    alike are one object, so that a deep model costs no more to count than a shallow one.
    """

    hidden_size: int
    max_position_embeddings: int
    position_rows: int
    sinusoidal_rows: int
    embedding_scale: float
    embedding_norm: NormConfig | None
    blocks: tuple[BlockConfig, ...]
    """Of every layer."""
    sharing: int
    """Consecutive layers that run on the same weights."""
    final_norm: NormConfig | None

    @classmethod
    def of(cls, layers: Sequence[Mapping[str, Scalar]], blocks: tuple[BlockConfig, ...]) -> StackConfig:
        """`layers`: the model as each of its layers sees it, `blocks` what they are."""
        first, last, unlike = layers[0], layers[-1], _each_once(layers)
        if first.get("skip_first_norm", False):
            blocks = (blocks[0].without_first_norm(), *blocks[1:])
        return cls(
            hidden_size=int(first["hidden_size"]),
            max_position_embeddings=int(first["attention.max_position_embeddings"]),
            position_rows=max(kept(layer, "rows", attention.table_rows) for layer in unlike),
            sinusoidal_rows=max(kept(layer, "sinusoidal rows", attention.sinusoidal_rows) for layer in unlike),
            embedding_scale=float(first.get("embedding_scale", 1.0)),
            embedding_norm=NormConfig.of(first) if first["has_embedding_layernorm"] else None,
            blocks=blocks,
            sharing=int(first.get("layers_sharing_weights", 1)),
            final_norm=NormConfig.of(last) if last["norm_position"] != "post" else None,
        )

    @classmethod
    def over_itself(cls, model: Mapping[str, Scalar]) -> StackConfig:
        """A stack whose blocks attend to its own tokens alone, under the masks that the model names."""
        layers = views(model)
        blocks = blocks_of(
            "over itself",
            layers,
            lambda layer: BlockConfig.of(layer, mask_type=str(layer["attention.attention_mask_type"])),
        )
        return cls.of(layers, blocks)

    @property
    def weighted_blocks(self) -> tuple[BlockConfig, ...]:
        """The blocks that have weights: of layers that share some the first."""
        return self.blocks[:: self.sharing]

    @property
    def score_biases(self) -> tuple[ScoreBiasConfig, ...]:
        """Each that a block has, once."""
        found: dict[ScoreBiasConfig, None] = {}
        seen: set[int] = set()
        for number, block in enumerate(self.weighted_blocks):
            if id(block) in seen and not block.attention.relative_table_per_layer:
                continue
            seen.add(id(block))
            found[self.score_bias(number * self.sharing)] = None
            if block.cross_attention is not None:
                found[block.cross_attention.score_bias] = None
        return tuple(found)

    def score_bias(self, layer: int) -> ScoreBiasConfig:
        """What a layer adds to the scores of its tokens' attention to each other. Layers of which it is the same share
        it, and so its learned table."""
        attention = self.blocks[layer].attention
        if not attention.relative_table_per_layer:
            return attention.score_bias
        return replace(attention.score_bias, owner=layer // self.sharing)

    def formatted(self) -> Iterator[Formatted]:
        for block in self.weighted_blocks:
            yield from block.formatted()

    def parameter_count(self) -> int:
        norms = [norm for norm in (self.embedding_norm, self.final_norm) if norm is not None]
        blocks = sum(count * block.parameter_count() for block, count in _counted(self.weighted_blocks))
        others = sum(part.parameter_count() for part in (*self.score_biases, *norms))
        return self.position_rows * self.hidden_size + blocks + others

    def flops(self, shape: Shape) -> int:
        return sum(count * block.flops(shape) for block, count in _counted(self.blocks))


def _counted(blocks: Sequence[BlockConfig]) -> list[tuple[BlockConfig, int]]:
    """The blocks that differ, each with how many there are of it."""
    counts = Counter(map(id, blocks))
    return [(block, counts[each]) for each, block in {id(block): block for block in blocks}.items()]


def _each_once(layers: Sequence[Mapping[str, Scalar]]) -> list[Mapping[str, Scalar]]:
    """The layers without those that are one object with a layer before them."""
    if all(layer is layers[0] for layer in layers):
        return [layers[0]]
    return list({id(layer): layer for layer in layers}.values())


def blocks_of(
    use: str, layers: Sequence[Mapping[str, Scalar]], make: Callable[[Mapping[str, Scalar]], BlockConfig]
) -> tuple[BlockConfig, ...]:
    """A block for each layer; layers that are one object get one block. `use`: what `make` makes of a layer."""
    made = {id(layer): kept(layer, use, make) for layer in _each_once(layers)}
    return tuple(made[id(layer)] for layer in layers)
