"""What of a space builds is found by the real builder, which needs no GPU, and told in words where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layers.space.document import Space
from workers.processes.child import ChildRequestError
from workers.space_check import NoBuilderError, SpaceCheck, read_space, report, sample

DOCUMENT: dict[str, Any] = {
    "name": "products",
    "task": "probe",
    "model": {
        "kind": "linear",
        "linear": {"in_features": {"values": [16, 32]}, "out_features": 16},
        "dtype": {"values": ["float32", "float16"]},
        "quantization": "int8",
    },
    "inference": {"batch_size": 2, "sequence_length": 8},
    "rules": ["not (linear.in_features == 32 and dtype == 'float32')"],
    "objectives": [{"metric": "latency_ms_p50", "goal": "minimize"}],
    "budget": {"trials": 4},
}


@pytest.fixture(scope="module")
def space() -> Space:
    return read_space(DOCUMENT, None)


@pytest.fixture(scope="module")
def check() -> Iterator[SpaceCheck]:
    pytest.importorskip("tensorrt_rtx")
    checking = SpaceCheck("tensorrt_rtx", compute_capability=8.9)
    yield checking
    checking.close()


def test_a_small_space_is_tried_whole_without_what_breaks_a_rule(space: Space) -> None:
    found = sample(space, 20, seed=0)
    assert (len(found.points), found.broken, found.whole) == (3, 1, True)


def test_of_a_larger_one_as_many_different_points_as_are_asked_for(space: Space) -> None:
    found = sample(space, 2, seed=0)
    assert len({repr(point) for point in found.points}) == 2
    assert not found.whole
    assert sample(space, 2, seed=0) == found


def test_points_are_built_for_real(check: SpaceCheck, space: Space) -> None:
    points = sample(space, 20, seed=0)
    found = report(points, list(check.findings(space, points.points)), check.capabilities)
    assert (found["points"], found["outcomes"], found["reasons"]) == (3, {"builds": 3}, [])
    assert found["target"]["device_model"] == "compute capability 8.9"
    assert 0 < found["engine_bytes"][0] <= found["engine_bytes"][1]


def test_what_the_target_lacks_is_told_before_the_builder_is_asked(space: Space) -> None:
    pytest.importorskip("tensorrt_rtx")
    checking = SpaceCheck("tensorrt_rtx", compute_capability=7.5)
    try:
        (finding,) = checking.findings(space, sample(space, 1, seed=0).points)
    finally:
        checking.close()
    assert finding.outcome == "infeasible"
    assert "needs compute capability 8.0" in (finding.reason or "")


def test_points_that_fail_for_one_reason_are_told_together(
    check: SpaceCheck, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is planted: there is no model of this size that the real builder fails on."""

    def build(configuration: dict[str, Any], folder: Path) -> dict[str, Any]:
        if configuration["model"]["dtype"] == "float16":
            raise ChildRequestError("build", f"no kernel for {folder}/model.onnx", "")
        return {"build_seconds": 1.0, "engine_bytes": 1, "weights_bytes": 1}

    monkeypatch.setattr(check, "_build", build)
    points = sample(space, 20, seed=0)
    found = report(points, list(check.findings(space, points.points)), check.capabilities)
    assert found["outcomes"] == {"builds": 1, "fails": 2}
    assert found["reasons"] == [
        {"outcome": "fails", "reason": "no kernel for model.onnx", "points": 2, "shared": {"dtype": "float16"}}
    ]


def test_a_machine_without_the_builder_is_told() -> None:
    with pytest.raises(NoBuilderError, match="/no-such-python"):
        SpaceCheck("tensorrt", engine_python="/no-such-python")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 0.0, 89.0e9])
def test_what_is_no_compute_capability_is_refused(number: float) -> None:
    with pytest.raises(NoBuilderError, match=r"is none: write it as 8\.9"):
        SpaceCheck("tensorrt_rtx", compute_capability=number)


def test_a_builder_that_takes_no_other_card_says_so() -> None:
    with pytest.raises(NoBuilderError, match="only tensorrt_rtx takes another's"):
        SpaceCheck("onnxruntime", compute_capability=8.9)


@pytest.mark.slow
def test_of_a_model_that_generates_prompt_and_step_are_built_too(
    check: SpaceCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {
        **DOCUMENT,
        "task": "causal_lm",
        "dataset": "text",
        "model": {"num_layers": 1, "hidden_size": 16, "attention.num_attention_heads": {"values": [2]}},
        "inference": {"mode": "generate", "batch_size": 1, "prompt_tokens": 4, "new_tokens": 4},
        "rules": [],
    }
    space = read_space(document, {"task": "causal_lm", "tokenizer": "byte", "facts": {"vocabulary_size": 29}})
    built: list[str] = []
    build = check._build_graph
    monkeypatch.setattr(check, "_build_graph", lambda trial, graph: built.append(graph.name) or build(trial, graph))
    points = sample(space, 1, seed=0)
    found = report(points, list(check.findings(space, points.points)), check.capabilities)
    assert (found["outcomes"], found["reasons"]) == ({"builds": 1}, [])
    assert built == ["model.onnx", "prefill.onnx", "step.onnx"]
