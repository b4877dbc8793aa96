"""A rank's segments, built one after another by its runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..verbs import BuildSizes
from .rank_engine import RankEngine
from .shards import Segment, Shards


def build_rank(
    engine: RankEngine, shards: Shards, rank: int, folder: Path, options: Mapping[str, object]
) -> BuildSizes:
    """Build a rank's segments into a folder; what they need together: scratch memory, each its own or in common, and
    what crosses from one to the next, which is memory of the rank. Raises RequestError as `Engine.build`."""
    built = shards.built(folder)
    sizes = [
        engine.build(graph.path, made.path, options)
        for graph, made in zip(shards.ranks[rank].steps, built.ranks[rank].steps, strict=True)
        if isinstance(graph, Segment) and isinstance(made, Segment)
    ]
    scratch = [each["activation_bytes"] or 0 for each in sizes]
    scratch_bytes = max(scratch) if engine.shares_scratch else sum(scratch)
    return {
        "engine_bytes": sum(each["engine_bytes"] for each in sizes),
        "weights_bytes": sum(each["weights_bytes"] for each in sizes),
        "activation_bytes": scratch_bytes + shards.ranks[rank].between_bytes,
        "io_bytes": shards.ranks[rank].io_bytes,
        "build_seconds": sum(each["build_seconds"] for each in sizes),
    }
