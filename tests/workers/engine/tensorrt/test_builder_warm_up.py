"""What a builder does before its first build."""

from __future__ import annotations

import pytest

from tests.workers.engine_parent import Parent


def test_a_builder_warms_up_by_a_small_build_of_its_own() -> None:
    pytest.importorskip("tensorrt_rtx")
    with Parent() as parent:
        assert parent.ask("warm_up", runtime="tensorrt_rtx") == {}


def test_a_runtime_whose_first_build_takes_no_longer_has_nothing_to_warm_up() -> None:
    with Parent() as parent:
        assert parent.ask("warm_up", runtime="onnxruntime") == {}
