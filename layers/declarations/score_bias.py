"""What is added to the scores of attention: masks, and positions where they enter there.

Relative positions are T5's (Raffel et al. 2020, arXiv 1910.10683): a learned number for each head and bucket of
distances. ALiBi (Press et al. 2021, arXiv 2108.12409) takes off a slope times the distance.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from layers.declarations.masks import CAUSAL_MASKS
from layers.declarations.rules import Condition, Violation
from layers.parameter import Parameter, Scalar

PARAMETERS: dict[str, Parameter] = {
    "num_buckets": Parameter(
        type="integer",
        minimum=4,
        maximum=1024,
        default=32,
        meaning="buckets of relative distances: half of them exact, the rest logarithmic; both ways: halved by sign",
        source="Raffel et al. 2020, arXiv 1910.10683: 32",
        search={"values": [16, 32, 64]},
    ),
    "max_distance": Parameter(
        type="integer",
        minimum=2,
        maximum=1_048_576,
        default=128,
        meaning="the relative distance from which on all share the last bucket",
        source="Raffel et al. 2020, arXiv 1910.10683: 128",
        search={"values": [64, 128, 256]},
    ),
    "relative_table_per_layer": Parameter(
        type="boolean",
        default=None,
        meaning=(
            "each layer has a learned table of its own, in place of one for all of a stack; left out: false. Layers "
            "that share weights share it"
        ),
        source="UMT5: Chung et al. 2023, arXiv 2304.09151; one for all: Raffel et al. 2020, arXiv 1910.10683",
        search={"values": [True, False]},
    ),
}

APPLIES: dict[str, Condition] = {
    "num_buckets": Condition("attention.position_embedding_type", ("relative",)),
    "max_distance": Condition("attention.position_embedding_type", ("relative",)),
    "relative_table_per_layer": Condition("attention.position_embedding_type", ("relative",)),
}


@dataclass(frozen=True, slots=True)
class RelativeConfig:
    """A learned table [num_heads, num_buckets]. If it is `bidirectional`, half of the buckets are for later keys."""

    num_heads: int
    num_buckets: int
    max_distance: int
    bidirectional: bool

    def bucket(self, distance: int) -> int:
        """The column of the table for a key's position - a query's position."""
        buckets = self.num_buckets // 2 if self.bidirectional else self.num_buckets
        away = abs(distance) if self.bidirectional else max(0, -distance)
        ahead = buckets if self.bidirectional and distance > 0 else 0
        return ahead + bisect_right(bucket_starts(buckets, self.max_distance), away) - 1

    def parameter_count(self) -> int:
        return self.num_heads * self.num_buckets


@dataclass(frozen=True, slots=True)
class ScoreBiasConfig:
    """Layers of a stack that have the same one share it, and so its learned table: as T5's layers do."""

    mask_type: str
    window_size: int | None = None
    """Of a sliding window: keys that a query sees, its own included."""
    relative: RelativeConfig | None = None
    alibi_slopes: tuple[float, ...] = ()
    """One a head; empty without ALiBi."""
    owner: int | None = None
    """The layer that has it for itself; None if layers share it."""

    @property
    def only_causal(self) -> bool:
        """A plain causal mask, for which there are kernels that need no bias."""
        return self.mask_type == "causal" and self.relative is None and not self.alibi_slopes

    def parameter_count(self) -> int:
        return self.relative.parameter_count() if self.relative else 0


@cache
def bucket_starts(num_buckets: int, max_distance: int) -> tuple[int, ...]:
    """The first distance of each of T5's buckets of one direction, ascending; buckets that no distance reaches repeat.

    The first half are exact: 0, 1, 2, ... = half - 1. Distance d ≥ half is in bucket
    half + floor(log(d / half) / log(max_distance / half) x (num_buckets - half)), at most the last. Calculated in whole
    numbers: d is at or beyond the start of the k-th logarithmic bucket if d^n ≥ max_distance^k x half^(n - k).
    """
    half = num_buckets // 2
    logarithmic = num_buckets - half
    starts = list(range(half))
    for k in range(logarithmic):
        threshold = max_distance**k * half ** (logarithmic - k)
        start = max(half, round(half * (max_distance / half) ** (k / logarithmic)))
        while start**logarithmic < threshold:
            start += 1
        while start > half and (start - 1) ** logarithmic >= threshold:
            start -= 1
        starts.append(start)
    return tuple(starts)


def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """The slope of each head: 2^(-8 i / n) for i = 1 ... n if n is a power of two.

    Else those of the next lower power of two, and then every second one of twice that, as the paper's code does.
    """
    if num_heads & (num_heads - 1) == 0:
        return tuple(2.0 ** (-8.0 * head / num_heads) for head in range(1, num_heads + 1))
    lower = 2 ** int(math.log2(num_heads))
    return alibi_slopes(lower) + alibi_slopes(2 * lower)[0::2][: num_heads - lower]


def broken_rules(model: Mapping[str, Scalar]) -> Iterator[Violation]:
    """Of a model whose positions are relative."""
    buckets, distance = int(model["attention.num_buckets"]), int(model["attention.max_distance"])
    both_ways = model["kind"] == "encoder_decoder" or model["attention.attention_mask_type"] not in CAUSAL_MASKS
    one_way = model["kind"] == "encoder_decoder" or not both_ways
    if both_ways and buckets % 2:
        message = f"{buckets} buckets cannot be halved between earlier and later tokens"
        yield Violation("num_buckets even", message, ("attention.num_buckets", "attention.attention_mask_type"))
    exact, part = (buckets // 2, "num_buckets / 2") if one_way else (buckets // 4, "num_buckets / 4")
    if distance <= exact:
        message = f"max_distance {distance} leaves no distance for the logarithmic buckets: {exact} are exact already"
        yield Violation(f"max_distance > {part}", message, ("attention.max_distance", "attention.num_buckets"))
