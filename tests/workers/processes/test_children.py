"""Children that are started before they are asked for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.processes.child import Child, ChildRequestError
from workers.processes.children import Children


class Watched(Children):
    """Shows the engine that was started and is not used yet."""

    @property
    def waiting_engine(self) -> Child:
        assert self._next_engine is not None
        return self._next_engine


@pytest.fixture
def children() -> Iterator[Watched]:
    children = Watched(threads=1)
    yield children
    children.kill()


@pytest.fixture
def device(tmp_path: Path) -> Path:
    return tmp_path / "device"


def test_an_engine_that_was_started_before_is_the_next_and_is_used_once(children: Watched, device: Path) -> None:
    children.start_engine("onnxruntime", device)
    children.start_engine("onnxruntime", device)
    first = children.fresh_engine()
    assert first.request("close", timeout_seconds=60) == {}
    second = children.fresh_engine()
    assert second.pid != first.pid
    assert not first.alive()


def test_one_that_has_died_meanwhile_is_started_anew(children: Watched, device: Path) -> None:
    children.start_engine("onnxruntime", device)
    died = children.waiting_engine
    os.kill(died.pid, signal.SIGKILL)
    os.waitid(os.P_PID, died.pid, os.WEXITED | os.WNOWAIT)
    engine = children.fresh_engine()
    assert engine.pid != died.pid
    assert engine.request("close", timeout_seconds=60) == {}


def test_a_runtime_that_is_not_here_is_the_request_s_to_say(children: Watched, device: Path) -> None:
    children.start_engine("abacus", device)
    engine = children.fresh_engine()
    with pytest.raises(ChildRequestError, match="no runtime 'abacus'"):
        engine.request("load", {"runtime": "abacus", "engine": "no-file"}, timeout_seconds=60)


def test_where_no_turn_can_be_taken_an_engine_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_folder = tmp_path / "locks"
    no_folder.touch()
    monkeypatch.setenv("LAYERSWEEP_LOCK_DIR", str(no_folder))
    children = Children(threads=1, gpu_uuid="GPU-1")
    engine = children.fresh_engine()
    children.close_engine()
    assert not engine.alive()
