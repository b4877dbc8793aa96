"""Which builds of TensorRT need the device to themselves, and what a builder does before its first one."""

from __future__ import annotations

import pytest

from tests.workers.engine_parent import Parent
from workers.engine.tensorrt.engine import TensorRtEngine


@pytest.mark.parametrize(
    ("options", "turn"), [({}, "alone"), ({"optimization_level": 1}, "alone"), ({"optimization_level": 0}, "stoppable")]
)
def test_a_build_that_compares_no_times_shares_the_device(options: dict[str, object], turn: str) -> None:
    engine = TensorRtEngine.__new__(TensorRtEngine)  # made without its library, which is not installed here
    assert engine.turn_of_build(options) == turn


def test_a_builder_warms_up_by_a_small_build_of_its_own() -> None:
    pytest.importorskip("tensorrt_rtx")
    with Parent() as parent:
        assert parent.ask("warm_up", runtime="tensorrt_rtx") == {}


def test_a_runtime_whose_first_build_takes_no_longer_has_nothing_to_warm_up() -> None:
    with Parent() as parent:
        assert parent.ask("warm_up", runtime="onnxruntime") == {}
