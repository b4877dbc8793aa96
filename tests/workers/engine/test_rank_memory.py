"""What the segments of a rank need together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from workers.engine.onnxruntime.rank import OnnxRuntimeRank
from workers.engine.parallel.building import build_rank
from workers.engine.parallel.shards import Schedule, Segment, Shards
from workers.engine.verbs import BuildAnswer

SCRATCH_BYTES = {"first": 300, "second": 500}


class RankOfKnownSizes(OnnxRuntimeRank):
    """Builds nothing, and says what that would need."""

    def build(self, onnx: Path, engine: Path, options: Mapping[str, object]) -> BuildAnswer:
        return {
            "engine_bytes": 10,
            "weights_bytes": 7,
            "activation_bytes": SCRATCH_BYTES[onnx.stem],
            "io_bytes": 0,
            "build_seconds": 0.5,
        }


@pytest.mark.parametrize(("is_shared", "scratch_bytes"), [(False, 800), (True, 500)])
def test_scratch_memory_in_common_counts_once(tmp_path: Path, is_shared: bool, scratch_bytes: int) -> None:
    rank = RankOfKnownSizes()
    rank.shares_scratch = is_shared
    steps = tuple(Segment(tmp_path / f"{name}.onnx") for name in SCRATCH_BYTES)
    shards = Shards(("tokens",), "logits", False, (Schedule(steps, io_bytes=40, between_bytes=60),))

    said = build_rank(rank, shards, 0, tmp_path, {})

    assert said["activation_bytes"] == scratch_bytes + 60
    assert (said["engine_bytes"], said["weights_bytes"], said["io_bytes"]) == (20, 14, 40)
