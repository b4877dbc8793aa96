"""Engines that were built before."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from workers.engine_cache import EngineCache

WHERE: dict[str, Any] = {"runtime": "tensorrt", "version": "8.6.0", "device": "GPU-1", "options": {"tf32": 0}}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"a graph")
    return path


def engine(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    return {"engine_bytes": len(content), "build_seconds": 3.0}


def test_the_same_build_comes_back_with_what_it_said(tmp_path: Path, graph: Path) -> None:
    cache, built, again = EngineCache(tmp_path / "cache"), tmp_path / "built", tmp_path / "again"
    key = cache.key(graph, **WHERE)
    assert cache.take(key, again) is None
    said = engine(built, b"an engine")
    cache.keep(key, built, said)
    assert EngineCache(tmp_path / "cache").take(key, again) == said
    assert again.read_bytes() == b"an engine"


def test_another_graph_version_device_or_option_is_another_engine(tmp_path: Path, graph: Path) -> None:
    cache = EngineCache(tmp_path)
    keys = {cache.key(graph, **WHERE)}
    for name, value in {
        "version": "11.0",
        "device": "GPU-2",
        "options": {"tf32": 1},
        "runtime": "tensorrt_rtx",
    }.items():
        keys.add(cache.key(graph, **{**WHERE, name: value}))
    graph.with_name("model.onnx.data").write_bytes(b"weights beside it")
    keys.add(cache.key(graph, **WHERE))
    graph.write_bytes(b"another graph")
    keys.add(cache.key(graph, **WHERE))
    assert len(keys) == 7


def test_an_engine_that_was_cut_off_is_built_again(tmp_path: Path, graph: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    key = cache.key(graph, **WHERE)
    cache.keep(key, tmp_path / "built", engine(tmp_path / "built", b"an engine"))
    next((tmp_path / "cache").glob("*.engine")).write_bytes(b"an eng")
    assert cache.take(key, tmp_path / "again") is None
    assert not (tmp_path / "again").exists()


def test_the_oldest_go_when_it_is_full(tmp_path: Path, graph: Path) -> None:
    cache = EngineCache(tmp_path / "cache", limit_bytes=25)
    keys = [cache.key(graph, **WHERE, number=number) for number in range(3)]
    for key in keys:
        cache.keep(key, tmp_path / "built", engine(tmp_path / "built", b"ten bytes!"))
    found = [cache.take(key, tmp_path / "again") is not None for key in keys]
    assert sum(found) == 2
    assert found[2]


def test_a_cache_that_cannot_be_written_loses_no_build(tmp_path: Path, graph: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder belongs")
    cache = EngineCache(tmp_path / "cache")
    key = cache.key(graph, **WHERE)
    cache.keep(key, tmp_path / "built", engine(tmp_path / "built", b"an engine"))
    assert cache.take(key, tmp_path / "again") is None
    assert (tmp_path / "built").exists()


def test_who_needs_the_same_waits_until_it_is_built_or_is_interrupted(tmp_path: Path) -> None:
    cache, order = EngineCache(tmp_path), list[str]()
    waits, is_built = threading.Event(), threading.Event()

    def second() -> None:
        with cache.one_at_a_time("loss", waits.set):
            order.append("second")
        is_built.set()

    def refuse() -> None:
        raise InterruptedError

    with cache.one_at_a_time("loss", lambda: None):
        threading.Thread(target=second, daemon=True).start()
        assert waits.wait(60)
        with pytest.raises(InterruptedError), cache.one_at_a_time("loss", refuse):
            order.append("nobody")
        with cache.one_at_a_time("another", refuse):
            order.append("first")
    assert is_built.wait(60)
    assert order == ["first", "second"]
