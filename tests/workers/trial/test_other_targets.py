"""Trying a model's build for other targets: what goes wrong with a builder is a finding about its target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workers.processes.child import ChildRequestError, ChildTimeoutError
from workers.trial.other_targets import try_builds


def tried(*results: dict[str, Any] | Exception) -> dict[str, Any]:
    """What is found by a builder whose answers these are, one after the other."""
    left = iter(results)

    def ask(verb: str, arguments: Mapping[str, object], *, timeout_seconds: float) -> Any:
        result = next(left)
        if isinstance(result, Exception):
            raise result
        return result

    return dict(try_builds(ask, Path("/nowhere"), lambda path, opset: None))


def test_every_target_is_tried_whatever_becomes_of_the_builds_before() -> None:
    found = tried(
        {"version": "1.2", "opset": 20},
        ChildRequestError("build", "no kernel for this layer", ""),
        OSError("no more processes"),
        ChildTimeoutError("took too long", ""),
        {"engine_bytes": 7, "build_seconds": 2.0},
    )
    assert [build["built"] for build in found.values()] == [False, False, False, True]
    assert [build.get("reason") for build in found.values()][:2] == ["no kernel for this layer", "no more processes"]
    assert next(iter(found)) == "tensorrt_rtx 1.2 for compute capability 7.5"


def test_a_builder_that_is_not_installed_finds_nothing() -> None:
    assert tried(ChildRequestError("unsupported", "tensorrt_rtx is not installed", "")) == {}
