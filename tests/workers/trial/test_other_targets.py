"""Trying a model's build for other targets: what goes wrong with a builder is a finding about its target."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from workers.interruption import Interruption
from workers.processes.child import ChildRequestError, ChildTimeoutError
from workers.processes.children import Children
from workers.trial.other_targets import try_builds


class ScriptedBuilder:
    """Stands in for the children and for their builder: each request has the next of these results."""

    def __init__(self, *results: dict[str, Any] | Exception) -> None:
        self._results = list(results)

    def builder(self) -> ScriptedBuilder:
        return self

    def request(self, verb: str, arguments: dict[str, Any], **options: Any) -> dict[str, Any]:
        result = self._results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def tried(*results: dict[str, Any] | Exception) -> dict[str, Any]:
    children = cast("Children", ScriptedBuilder(*results))
    return dict(try_builds(children, Path("/nowhere"), lambda path, opset: None, Interruption()))


def test_every_target_is_tried_whatever_becomes_of_the_builds_before() -> None:
    found = tried(
        {"version": "1.2", "opset": 20},
        ChildRequestError("build", "no kernel for this layer", ""),
        OSError("no more processes"),
        ChildTimeoutError("took too long", ""),
        {"engine_bytes": 7},
    )
    assert [build["built"] for build in found.values()] == [False, False, False, True]
    assert [build.get("reason") for build in found.values()][:2] == ["no kernel for this layer", "no more processes"]
    assert next(iter(found)) == "tensorrt_rtx 1.2 for compute capability 7.5"


def test_a_builder_that_is_not_installed_finds_nothing() -> None:
    assert tried(ChildRequestError("unsupported", "tensorrt_rtx is not installed", "")) == {}
