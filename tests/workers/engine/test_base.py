"""What the contract of engines does for every runtime: whole files or none, logged errors, options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from workers.engine.base import BuildLog, Engine, Footprint, Option, checked_options
from workers.engine.protocol import RequestError


class Builder(Engine):
    """Writes an engine file and logs what the test says."""

    runtime = "builder"
    known_harmless_errors = ("cache will not be used",)

    def __init__(self, *logged: str, crashes: bool = False) -> None:
        super().__init__()
        self.logged = logged
        self.crashes = crashes

    def _build(self, onnx: Path, engine: Path, options: Mapping[str, int], log: BuildLog) -> None:
        engine.write_bytes(onnx.read_bytes() + b" built")
        for message in self.logged:
            log.error(message)
        if self.crashes:
            raise MemoryError("as planned")

    def _footprint(self, engine: Path) -> Footprint:
        return Footprint(weights_bytes=engine.stat().st_size, activation_bytes=2, io_bytes=3)

    def _unused(self, *_: Any) -> Any:
        raise AssertionError("a build does not need this")

    describe = _load = _prepare = _run = _attach_loss = _loss = _close = _unused


Builder.__abstractmethods__ = frozenset()


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"graph")
    return path


def test_a_build_reports_sizes_and_replaces_what_was_there(graph: Path, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_bytes(b"older and longer than the new one")
    built = Builder().build(graph, engine, {})
    assert engine.read_bytes() == b"graph built"
    assert built.pop("build_seconds") > 0
    assert built == {"engine_bytes": 11, "weights_bytes": 11, "activation_bytes": 2, "io_bytes": 3}
    assert sorted(os.listdir(tmp_path)) == ["engine", "graph.onnx"]  # noqa: PTH208


def test_an_engine_that_comes_with_a_logged_error_is_not_kept(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="mask and causal") as failed:
        Builder("mask and causal kind are both set").build(graph, tmp_path / "engine", {})
    assert failed.value.kind == "build"
    assert sorted(os.listdir(tmp_path)) == ["graph.onnx"]  # noqa: PTH208


def test_an_error_that_is_known_to_be_harmless_is_let_pass(graph: Path, tmp_path: Path) -> None:
    Builder("the timing cache will not be used").build(graph, tmp_path / "engine", {})
    assert (tmp_path / "engine").exists()
    with pytest.raises(RequestError, match="something else"):
        Builder("the timing cache will not be used", "something else").build(graph, tmp_path / "engine", {})


def test_a_build_that_fails_midway_leaves_nothing(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        Builder(crashes=True).build(graph, tmp_path / "engine", {})
    assert sorted(os.listdir(tmp_path)) == ["graph.onnx"]  # noqa: PTH208


def test_options_have_defaults_and_bounds() -> None:
    known = {"level": Option(default=3, minimum=0, maximum=5)}
    assert checked_options({}, known, "build") == {"level": 3}
    assert checked_options({"level": 5}, known, "build") == {"level": 5}
    for options in ({"level": 6}, {"level": -1}, {"level": 1.0}, {"level": True}, {"speed": 1}):
        with pytest.raises(RequestError) as failed:
            checked_options(options, known, "build")
        assert failed.value.kind == "invalid"
